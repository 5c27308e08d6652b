"""Write the DVC files from components/steps.py and variant_steps.py: DVC knows of a step what the step is given.

    python -m pipelines.generate            write dvc.yaml, pipelines/ablations/dvc.yaml and pipelines/numeric.yaml
    python -m pipelines.generate --check    say whether they are what would be written (a test and the CI do)

A stage depends on its inputs, on the project files that its code consists of, on the settings that it sees, on the
hashes of its models, and on the versions of the numeric libraries.

The ablation pipeline's stages are repeated over the runs of the settings' variants (components/variants.py). Where a
run takes over another's adapter or files, its stage depends on that run's: so these matrices are written out, with
what each run uses (DVC's `foreach`).
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from components import config, variants
from components.closure import import_closure
from components.environment import numeric_fingerprint, numeric_versions
from components.errors import CotamError
from components.files import atomic_write
from components.paths import ROOT
from components.step import AXES, Step
from components.steps import ABLATION_STEPS, STEPS
from components.variants import Run

_HEADER = "# Written by `python -m pipelines.generate` from {source}. Do not edit.\n"


ABLATIONS = "pipelines/ablations/dvc.yaml"


def stage(step: Step, root: Path = ROOT) -> dict[str, Any]:
    """The entry of one step under `stages` in dvc.yaml."""
    entry: dict[str, Any] = {"desc": step.summary}
    if step.matrix:
        entry["matrix"] = {axis: f"${{{AXES[axis]}}}" for axis in step.matrix}
    return entry | _body(step, {axis: f"${{item.{axis}}}" for axis in step.matrix}, root)


def variant_stage(step: Step, runs: Sequence[Run], root: Path = ROOT) -> dict[str, Any]:
    """The same in the ablation pipeline: repeated over `runs`, or once, for all of them."""
    if step.runs is None:
        return {"desc": step.summary, "wdir": "../.."} | _body(step, {}, root)
    body = _body(step, _Items(), root)
    used = sorted({key for key in next(iter(runs)).as_instance() if f"${{item.{key}}}" in str(body)})
    items = {run.name: {key: run.as_instance()[key] for key in used} for run in runs}
    return {"foreach": items, "do": {"desc": step.summary, "wdir": "../.."} | body}


def ablations(root: Path = ROOT) -> str:
    """The text of pipelines/ablations/dvc.yaml, for the variants in params.yaml of `root`.

    Raises:
        CotamError: a setting or a variant is wrong, or a method has no module to train it.
    """
    settings = config.load(root / "params.yaml")
    variants.check_layers(settings, root)
    every, stages = variants.runs(settings), {}
    for step in ABLATION_STEPS:
        chosen = [run for run in every if step.runs and step.runs(run)]
        if step.runs and not chosen:
            continue
        try:
            stages[step.name] = variant_stage(step, chosen, root)
        except FileNotFoundError:
            needed = ", ".join(run.variant for run in chosen)
            raise CotamError(f"{step.module} does not exist, which these variants need: {needed}.") from None
    source = "components/variant_steps.py and params.yaml"
    return _HEADER.format(source=source) + _dump({"stages": stages})


def contents(root: Path = ROOT) -> dict[Path, str]:
    """The text of every generated file."""
    stages = {step.name: stage(step, root) for step in STEPS}
    numeric = {"fingerprint": numeric_fingerprint(), "versions": numeric_versions()}
    return {
        root / "dvc.yaml": _HEADER.format(source="components/steps.py") + _dump({"stages": stages}),
        root / ABLATIONS: ablations(root),
        root / "pipelines/numeric.yaml": _HEADER.format(source="requirements.lock") + _dump(numeric),
    }


class _Items(dict):
    """Any name stands for itself in DVC's template."""

    def __missing__(self, name: str) -> str:
        return f"${{item.{name}}}"


def _body(step: Step, item: dict[str, str], root: Path) -> dict[str, Any]:
    """What a step is in DVC, whatever it is repeated over."""
    options = "".join(f" --{axis} {item[axis]}" for axis in step.matrix)
    folder = step.out.format_map(item)
    deps = [_fill(dependency, item) for dependency in step.deps]
    code = [path.as_posix() for path in import_closure(step.module, root)]
    params: list[Any] = sorted(_fill(key, item) for key in step.params)
    if step.models:
        params.append({"data/weights.json": sorted(_fill(key, item) for key in step.models)})
    params.append({"pipelines/numeric.yaml": ["fingerprint"]})

    entry: dict[str, Any] = {"cmd": f"cotam step {step.name}{options}", "deps": sorted(deps + code), "params": params}
    entry["outs"] = [f"{folder}/{name}" for name in sorted(step.outs)] or [folder]
    if step.metrics:
        entry["metrics"] = [f"{folder}/{name}" for name in sorted(step.metrics)]
    entry["meta"] = {"pool": step.pool}
    return entry


def _fill(text: str, item: dict[str, str]) -> str:
    """`{codec}` and the like filled in; DVC's own ${data.source} stays."""
    return re.sub(r"(?<!\$)\{(\w+)\}", lambda found: item[found[1]], text)


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
