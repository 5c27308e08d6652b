"""Everything that the report shows, computed from rates.json and scores.json alone (docs/summary-schema.md)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.evaluation.bd_rate import bd_rates, bd_scores
from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.bootstrap import image_weights, interval
from components.evaluation.curves import Curve, rate_score_curve
from components.evaluation.scores import CLIP_COLUMNS, COLUMNS, MEAN, Scores
from components.evaluation.streams import CLEAN, CLIPS

SCHEMA = 1
AVERAGED_TASKS = ("mme", "textvqa_val", "pope", "seedbench", "vqav2_val", "mmbench_en_dev_static")
"""The six benchmarks of the mean, as lmms-eval calls them (the paper's Table 2)."""


def summarise(
    rates: Mapping[str, Mapping[str, Any]],
    scores: Mapping[tuple[str, str], Mapping[str, Any]],
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """summary.json, but for what training and the allocation maps add to it.

    Args:
        rates: codec -> rates.json.
        scores: (codec, MLLM) -> scores.json.
        replicates: of the bootstrap behind every interval.
        seed: of the bootstrap.
    """
    found: dict[str, Any] = {"schema": SCHEMA, "benchmarks": list(BENCHMARKS), "codecs": {}}
    found |= {key: {codec: rate[key] for codec, rate in rates.items()} for key in ("photographs", "map_bits")}
    for (codec, mllm), scored in scores.items():
        for method, entry in summarise_pair(codec, rates[codec], scored, replicates, seed).items():
            found["codecs"].setdefault(codec, {}).setdefault(method, {})[mllm] = entry
    return found


def summarise_pair(
    codec: str, rates: Mapping[str, Any], scored: Mapping[str, Any], replicates: int, seed: int
) -> dict[str, dict[str, Any]]:
    """What each method did for one codec and one MLLM: method -> its entry in the summary."""
    bench = _Style(rates, scored, "bench", replicates, seed)
    train = _Style(rates, scored, "train", replicates, seed) if "train" in scored["styles"] else None
    clips = _Style(rates, scored, CLIPS, replicates, seed, CLIP_COLUMNS) if CLIPS in scored["styles"] else None
    anchor = bench.curve(codec)
    found = {CLEAN.method: bench.clean_entry() | ({"train_style": train.clean_entry()["curve"]} if train else {})}
    for method in bench.methods:
        curve = bench.curve(method)
        entry: dict[str, Any] = {"curve": bench.points(curve), "levels": bench.level_rows(method)}
        if method == codec:
            entry["cross_level_excess"] = bench.cross_level_excess(method)
        if train and method in train.methods:
            entry["train_style"] = train.points(train.curve(method))
        if method != codec:
            rates_saved, gains = bench.compare(anchor, curve)
            average = np.mean([rates_saved[name] for name in BENCHMARKS], axis=0)  # NaN where one of them is
            entry |= _compared(rates_saved, gains) | {"bd_rate_average": _with_interval(average)}
            entry["level_gains"] = bench.level_gains(codec, method)
        found[method] = entry
    if clips:
        found[CLEAN.method]["clips"] = clips.clean_entry()
        for method in clips.methods:
            found[method]["clips"] = _clips_entry(clips, codec, method)
    return found


def _clips_entry(clips: "_Style", codec: str, method: str) -> dict[str, Any]:
    """What a method did for videos."""
    curve = clips.curve(method)
    entry = {"curve": clips.points(curve), "levels": clips.level_rows(method)}
    return entry if method == codec else entry | _compared(*clips.compare(clips.curve(codec), curve))


def summarise_tasks(
    codec: str, tasks: Mapping[str, Mapping[str, Any]], replicates: int, seed: int
) -> dict[str, dict[str, Any]]:
    """What each method did for one MLLM on lmms-eval's tasks.

    Args:
        codec: whose curves the others are held against.
        tasks: task -> its scores.json; those without questions, which the MLLM does not take, are left out.
        replicates, seed: of the bootstrap, over what a question shows.

    Returns:
        Method -> {"tasks": {task: entry}}, and `tasks_average`, the BD-rates of those of `AVERAGED_TASKS` that were
        asked, averaged.
    """
    found: dict[str, dict[str, Any]] = {}
    rates_saved: dict[str, dict[str, np.ndarray]] = {}
    for task, scored in tasks.items():
        if not scored["questions"]:
            continue
        files = {"images": scored["images"], "pixels": scored["pixels"], "methods": scored["methods"]}
        style = _Style({"styles": {task: files}}, {"styles": {task: scored}}, task, replicates, seed, (task,))
        anchor = style.curve(codec)
        entries = {CLEAN.method: {"curve": style.clean_entry()["curve"], "images": len(scored["images"])}}
        for method in style.methods:
            curve = style.curve(method)
            entries[method] = {"curve": style.points(curve)}
            if method != codec:
                rates, gains = style.compare(anchor, curve)
                entries[method] |= _compared(rates, gains)
                if task in AVERAGED_TASKS:
                    rates_saved.setdefault(method, {})[task] = rates[task]
        for method, entry in entries.items():
            found.setdefault(method, {"tasks": {}})["tasks"][task] = entry
    for method, rates in rates_saved.items():
        average = np.mean(list(rates.values()), axis=0)  # NaN where one of them is
        found[method]["tasks_average"] = {"tasks": list(rates)} | _with_interval(average)
    return found


class _Style:
    """Rates and scores of one style of images, or of the clips, resampled together."""

    def __init__(
        self,
        rates: Mapping[str, Any],
        scored: Mapping[str, Any],
        style: str,
        replicates: int,
        seed: int,
        columns: Sequence[str] = COLUMNS,
    ):
        self.columns = columns
        benchmarks = [name for name in columns if name != MEAN]
        files = rates["styles"][style]
        self.files = files["methods"]
        self.methods = [method for method in self.files if method in scored["styles"][style]["scores"]]
        self.pixels_I = np.array(files["pixels"], float)
        self.weights_RI = image_weights(len(files["images"]), replicates, seed)
        self.scores = Scores.from_json(scored["styles"][style])
        self.results = self.scores.benchmarks(files["images"], self.weights_RI, benchmarks)
        self.levels = self.scores.levels(files["images"], self.weights_RI)

    def curve(self, method: str, of_levels: bool = False) -> Curve:
        """A method's curve over benchmarks, or over levels."""
        results = self.levels if of_levels else self.results
        return rate_score_curve(method, self.files[method], self.pixels_I, self.weights_RI, self.scores, results)

    def clean_entry(self) -> dict[str, Any]:
        """What the summary says of clean images, which have one point and no rate."""
        column = self.scores.settings.index(CLEAN)
        scores = {name: _value(self.results[name][:, column]) for name in self.columns}
        intervals = {name: _ends(self.results[name][:, column]) for name in self.columns}
        point = {"quality": None, "bpp": None, "bpp_without_header": None, "scores": scores, "intervals": intervals}
        levels = {}
        for level, values_RS in self.levels.items():
            row = {"quality": None, "bpp": None, "score": _value(values_RS[:, column])}
            levels[level] = [row | _low_high(values_RS[:, column])]
        return {"curve": [point], "levels": levels}

    def level_rows(self, method: str) -> dict[str, list[dict[str, Any]]]:
        """Score and drop from clean images per level and quality."""
        curve, clean = self.curve(method, of_levels=True), self.scores.settings.index(CLEAN)
        found = {}
        for level, scores_RP in curve.scores.items():
            drops_RP = self.levels[level][:, clean, None] - scores_RP
            found[level] = []
            for place in _by_rate(curve):
                score, drop = scores_RP[:, place], drops_RP[:, place]
                row = {"quality": int(curve.qualities[place]), "bpp": float(curve.bpp_RP[0, place])}
                row |= {"score": _value(score), "drop": _value(drop)}
                found[level].append(row | _low_high(score) | _low_high(drop, "drop_"))
        return found

    def level_gains(self, codec: str, method: str) -> dict[str, dict[str, float | None]]:
        """Points that a method gains over the codec alone at equal rate (BD-score), per level (C1)."""
        anchor, curve = (self.curve(name, of_levels=True) for name in (codec, method))
        return {level: _with_interval(bd_scores(anchor.on(level), curve.on(level))) for level in curve.scores}

    def cross_level_excess(self, method: str) -> dict[str, dict[str, float | None]]:
        """Points that a method loses on cross-level questions, averaged over its rates, less what it loses on those of
        each other level (C2)."""
        curve, clean = self.curve(method, of_levels=True), self.scores.settings.index(CLEAN)
        lost = {
            level: (self.levels[level][:, clean, None] - scores_RP).mean(1) for level, scores_RP in curve.scores.items()
        }
        cross_R = lost.pop("cross")
        return {level: _with_interval(cross_R - lost_R) for level, lost_R in lost.items()}

    def points(self, curve: Curve) -> list[dict[str, Any]]:
        """A curve as the summary has it, by rising rate."""
        return [
            {
                "quality": int(curve.qualities[place]),
                "bpp": float(curve.bpp_RP[0, place]),
                "bpp_without_header": float(curve.bare_RP[0, place]),
                "scores": {name: _value(curve.scores[name][:, place]) for name in self.columns},
                "intervals": {name: _ends(curve.scores[name][:, place]) for name in self.columns},
            }
            for place in _by_rate(curve)
        ]

    def compare(self, anchor: Curve, curve: Curve) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """BD-rates and BD-scores, (R,), by column."""
        rates = {name: bd_rates(anchor.on(name), curve.on(name)) for name in self.columns}
        return rates, {name: bd_scores(anchor.on(name), curve.on(name)) for name in self.columns}


def _compared(rates: Mapping[str, np.ndarray], gains: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        "bd_rate": {name: _with_interval(values) for name, values in rates.items()},
        "bd_score": {name: _with_interval(values) for name, values in gains.items()},
    }


def _by_rate(curve: Curve) -> np.ndarray:
    return np.argsort(curve.bpp_RP[0], kind="stable")


def _with_interval(resamples: np.ndarray) -> dict[str, float | None]:
    return {"value": _value(resamples)} | _low_high(resamples)


def _low_high(resamples: np.ndarray, prefix: str = "") -> dict[str, float | None]:
    low, high = _ends(resamples) or (None, None)
    return {f"{prefix}low": low, f"{prefix}high": high}


def _ends(resamples: np.ndarray) -> list[float] | None:
    """The interval, unless the number itself is not defined."""
    if np.isnan(resamples[0]):
        return None
    ends = interval(resamples)
    return None if ends is None else list(ends)


def _value(resamples: np.ndarray) -> float | None:
    return None if np.isnan(resamples[0]) else float(resamples[0])
