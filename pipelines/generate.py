"""Write dvc.yaml from `components/steps.py`, so that what DVC knows of a step is what the step is given.

    python -m pipelines.generate            write dvc.yaml and pipelines/numeric.yaml
    python -m pipelines.generate --check    say whether they are what would be written (a test and the CI do)

A stage depends on its inputs, on the project files that its code consists of, on the settings that it sees, on the
hashes of its models, and on the versions of the numeric libraries.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from components.closure import import_closure
from components.environment import numeric_fingerprint, numeric_versions
from components.errors import CotamError
from components.files import atomic_write
from components.paths import ROOT
from components.steps import STEPS, Step

_HEADER = "# Written by `python -m pipelines.generate` from {source}. Do not edit.\n"


def stage(step: Step, root: Path = ROOT) -> dict[str, Any]:
    """The entry of one step under `stages` in dvc.yaml."""
    item = {axis: f"${{item.{axis}}}" for axis in step.matrix}
    options = "".join(f" --{axis} {value}" for axis, value in item.items())
    folder = step.out.format(**item)
    # Not str.format: a dependency may hold DVC's own ${data.source}.
    deps = [_fill(dependency, item) for dependency in step.deps]
    code = [path.as_posix() for path in import_closure(step.module, root)]
    params: list[Any] = sorted(_fill(key, item) for key in step.params)
    if step.models:
        params.append({"data/weights.json": sorted(_fill(key, item) for key in step.models)})
    params.append({"pipelines/numeric.yaml": ["fingerprint"]})

    entry: dict[str, Any] = {"desc": step.summary}
    if step.matrix:
        entry["matrix"] = {axis: f"${{{axis}s}}" for axis in step.matrix}
    entry["cmd"] = f"cotam step {step.name}{options}"
    entry["deps"] = sorted(deps + code)
    entry["params"] = params
    entry["outs"] = [f"{folder}/{name}" for name in sorted(step.outs)] or [folder]
    if step.metrics:
        entry["metrics"] = [f"{folder}/{name}" for name in sorted(step.metrics)]
    entry["meta"] = {"pool": step.pool}
    return entry


def contents(root: Path = ROOT) -> dict[Path, str]:
    """The text of every generated file."""
    stages = {step.name: stage(step, root) for step in STEPS}
    numeric = {"fingerprint": numeric_fingerprint(), "versions": numeric_versions()}
    return {
        root / "dvc.yaml": _HEADER.format(source="components/steps.py") + _dump({"stages": stages}),
        root / "pipelines/numeric.yaml": _HEADER.format(source="requirements.lock") + _dump(numeric),
    }


def _fill(text: str, item: dict[str, str]) -> str:
    for axis, value in item.items():
        text = text.replace(f"{{{axis}}}", value)
    return text


def _dump(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=120)


def main() -> int:
    """Write the files, or with --check compare them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    check = parser.parse_args().check
    try:
        for path, text in contents().items():
            if check and (not path.exists() or path.read_text() != text):
                raise CotamError(f"{path.name} is out of date; run `python -m pipelines.generate`.")
            if not check:
                atomic_write(path, text)
    except (CotamError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
