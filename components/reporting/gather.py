"""summary.json, put together from the files of the stages (docs/summary-schema.md), and what a run was made from."""

from collections.abc import Sequence

from components.files import read_json, sha256
from components.paths import Paths, instance_name

Pair = tuple[str, str]
"""The names of a codec and of an MLLM."""


def summarise_run(paths: Paths, pairs: list[Pair], replicates: int, seed: int, tasks: Sequence[str] = ()) -> dict:
    """Scores, rates and BD-rates of every pair, what its adapter learned, the MLLMs' kinds and the images' size.

    Args:
        paths: of the checkout whose results are read.
        pairs: at least one, in the order in which they are to be shown.
        replicates: of the bootstrap behind every interval.
        seed: of the bootstrap.
        tasks: of lmms-eval that every pair was asked.

    Raises:
        CotamError: a stage's file is missing.
    """
    from components.evaluation.summary import summarise, summarise_tasks
    from components.evaluation.task_results import task_folder

    rates = {codec: read_json(paths.rate(codec) / "rates.json") for codec, _ in pairs}
    summary = summarise(
        rates,
        {pair: read_json(paths.scores(*pair) / "scores.json") for pair in pairs},
        replicates,
        seed,
    )
    for codec, mllm in pairs:
        scored = {task: read_json(task_folder(paths, codec, mllm, task) / "scores.json") for task in tasks}
        for method, entry in summarise_tasks(codec, scored, replicates, seed).items():
            summary["codecs"][codec][method][mllm] |= entry
    codecs, mllms = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    summary["order"] = {"codecs": codecs, "mllms": mllms}
    kinds = read_json(paths.weights).get("kinds", {})
    summary["mllms"] = {mllm: kinds[mllm] for mllm in mllms if kinds.get(mllm)}
    pixels = rates[codecs[0]]["styles"]["bench"]["pixels"]
    summary["image_pixels"] = sum(pixels) / len(pixels)
    summary["adapter"] = {
        instance_name(*pair): adapter_losses(
            read_json(paths.warmup(*pair) / "metrics.json"), read_json(paths.joint(*pair) / "metrics.json")
        )
        for pair in pairs
    }
    return summary


def adapter_losses(warmup: dict, joint: dict) -> dict:
    """Losses on held-out images per quality, from the two stages' metrics.json.

    Returns:
        {"qualities": [...], "low" and "high": {"without", "warmup", "joint": a list each}}.
    """
    qualities = sorted(joint["validation"], key=int)
    losses = {
        kind: {
            "without": [joint["validation"][quality][f"{kind}_unadapted"] for quality in qualities],
            "warmup": [warmup["validation"][quality][kind] for quality in qualities],
            "joint": [joint["validation"][quality][kind] for quality in qualities],
        }
        for kind in ("low", "high")
    }
    return {"qualities": [int(quality) for quality in qualities], **losses}


def provenance(paths: Paths) -> list[tuple[str, str]]:
    """What the run was made from: hashes of models and data, versions of the libraries that can change a number."""
    from components.environment import numeric_versions

    weights = {key: value for key, value in read_json(paths.weights).items() if key != "kinds"}
    rows = [(f"model {key}", str(value)) for key, value in _flat(weights)]
    shards = paths.shards / "manifest.json"
    if shards.is_file():
        rows.append(("training images, manifest of the shards", sha256(shards)))
    return rows + [(name, version) for name, version in numeric_versions().items()]


def _flat(values: dict, prefix: str = ""):
    for key, value in sorted(values.items()):
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value
