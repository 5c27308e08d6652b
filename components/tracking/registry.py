"""Which codecs and adapters are kept: versions in MLflow's model registry, as plain safetensors folders.

Registering is idempotent: a version carries the hash of its files, and the same files are never registered twice; of
those that are known, what was measured (BD-rates, and on which benchmarks) is brought up to date. The alias
`champion` names the version to use, and moves by the rule in `promotion.py`.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import CotamError
from components.files import read_json, sha256_tree
from components.paths import Paths
from components.tracking.lineage import TAG, benchmark_version, data_of
from components.tracking.promotion import promote

EXPERIMENT = "cotam"
YARDSTICK = "jpeg"  # a codec is judged by what JPEG would cost in its place


@dataclass(frozen=True)
class Candidate:
    """A trained model that may become a version.

    Attributes:
        name: of the registered model.
        folder: config.json and safetensors.
        bd_rate: in per cent, lower is better; None when the report has none.
        tags: what is written beside the version.
        high: the upper end of the BD-rate's 95 % interval; None when it has none.
    """

    name: str
    folder: Path
    bd_rate: float | None
    tags: Mapping[str, str] = field(default_factory=dict)
    high: float | None = None


@dataclass(frozen=True)
class Registered:
    """What became of a candidate; `reason` ends the sentence that it is, or is not, champion because ..."""

    name: str
    version: str
    new: bool
    champion: bool
    reason: str = ""


def candidates(root: Path, revision: str = "") -> Iterator[Candidate]:
    """The codecs and adapters of the run whose results lie below `root`.

    Raises:
        CotamError: there is no finished report.
    """
    from components import config
    from components.weights import resolve

    settings, summary = config.load(root / "params.yaml"), read_json(Paths(root).report / "summary.json")
    data, scored = data_of(root), settings.evaluation
    measured = benchmark_version(data, [scored.qualities, scored.jpeg_qualities, scored.webp_qualities])
    origin = {"revision": revision, "benchmarks": measured, TAG: json.dumps(data, sort_keys=True)}
    for codec in settings.codecs:
        found = summary["codecs"][codec]
        weights = resolve(settings.codec[codec].weights)
        # Negated: what JPEG costs more is what the codec saves, and the interval's lower end is then the upper one.
        cost, highest = _mean_negated(found, settings.mllms)
        tags = {**origin, "bd_rate_of": f"this codec against {YARDSTICK}, sign as in negated BD-rate"}
        yield Candidate(f"cotam-codec-{codec}", weights, cost, tags, highest)
        for mllm in settings.mllms:
            scores = {
                f"bd_rate.{benchmark}": str(rate["value"])
                for benchmark, rate in found["cotam"][mllm]["bd_rate"].items()
                if rate
            }
            tags = {**origin, "codec_hash": sha256_tree(weights), "mllm": mllm, **scores}
            folder = Paths(root).joint(codec, mllm) / "adapter"
            value, high = (_bd_rate(found, "cotam", mllm, end) for end in ("value", "high"))
            yield Candidate(f"cotam-adapter-{codec}-{mllm}", folder, value, tags, high)


def register(found: Candidate, uri: str, run_id: str | None = None) -> Registered:
    """Make the candidate a version, unless its files already are one, and move the champion if the rule says so.

    Args:
        found: the model.
        uri: of the MLflow server.
        run_id: the run it came from, whose artifacts hold the files; a run of its own when None.

    Raises:
        CotamError: MLflow cannot be reached.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # what we print may be JSON
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(uri)
    try:
        _ensure_model(client, found.name)
        content = sha256_tree(found.folder)
        versions = client.search_model_versions(f"name = '{found.name}'")
        version = next((v for v in versions if v.tags.get("content_hash") == content), None)
        new = version is None
        if version is None:
            version, new = _only_one(client, found, content, _create(client, found, content, run_id))
        else:
            _update(client, found, version)
        verdict = promote(client, found.name, str(version.version))
    except MlflowException as error:
        raise CotamError(f"MLflow at {uri} did not register {found.name}: {error.message}") from error
    return Registered(found.name, str(version.version), new, verdict.moves, verdict.reason)


def _bd_rate(found: Mapping[str, Any], method: str, mllm: str, end: str) -> float | None:
    rate = found.get(method, {}).get(mllm, {}).get("bd_rate", {}).get("mean")
    return rate[end] if rate else None


def _mean_negated(found: Mapping[str, Any], mllms: Sequence[str]) -> tuple[float | None, float | None]:
    """The mean over the MLLMs that have a BD-rate, and its upper end if each of those has an interval."""
    values, ends = ([_bd_rate(found, YARDSTICK, mllm, end) for mllm in mllms] for end in ("value", "low"))
    known = [(-value, end) for value, end in zip(values, ends, strict=True) if value is not None]
    if not known:
        return None, None
    mean = sum(value for value, _ in known) / len(known)
    return mean, None if None in (end for _, end in known) else -sum(end for _, end in known) / len(known)


def _ensure_model(client, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _create(client, found: Candidate, content: str, run_id: str | None):
    own_run = run_id is None
    if own_run:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        run_id = client.create_run(experiment_id, run_name=f"register {found.name}").info.run_id
    client.log_artifacts(run_id, str(found.folder), f"models/{found.name}")
    source = f"{client.get_run(run_id).info.artifact_uri}/models/{found.name}"
    tags = {"content_hash": content, **_measured(found), **found.tags}
    version = client.create_model_version(found.name, source, run_id, tags=tags)
    if own_run:
        client.set_terminated(run_id)
    return version


def _only_one(client, found: Candidate, content: str, created) -> tuple[Any, bool]:
    """The version to keep of files that another run has registered at the same time, and whether it is `created`.

    The lower number stays; each of the runs sees both, for each looks after it has made its own.
    """
    same = [
        version
        for version in client.search_model_versions(f"name = '{found.name}'")
        if version.tags.get("content_hash") == content
    ]
    first = min(same, key=lambda version: int(version.version), default=created)
    if int(first.version) == int(created.version):
        return created, True
    client.delete_model_version(found.name, created.version)
    _update(client, found, first)
    return first, False


def _update(client, found: Candidate, version) -> None:
    """Give a version what has been measured of its files since; what a run without a report knows takes nothing away.

    Where it comes from (its revision and data) stays: the files were made then.
    """
    if found.bd_rate is None:
        return
    scores = {key: value for key, value in found.tags.items() if key == "benchmarks" or key.startswith("bd_rate")}
    for key, value in (_measured(found) | scores).items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(found.name, version.version, key, value)
    for key in version.tags.keys() - scores.keys():
        if key.startswith("bd_rate."):  # of a benchmark that is no longer asked
            client.delete_model_version_tag(found.name, version.version, key)


def _measured(found: Candidate) -> dict[str, str]:
    rates = {"bd_rate": found.bd_rate, "bd_rate_high": found.high}
    return {key: "" if rate is None else str(rate) for key, rate in rates.items()}
