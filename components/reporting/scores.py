"""What the page says about scores, rates and levels, from summary.json (docs/summary-schema.md).

A pair is one codec seen by one MLLM. Everything here is selection and layout: no score, interval or BD-rate is computed
that is not in the summary already.
"""

from components.reporting.figures import LARGE, MEDIUM, Interval, Level, Line, Panel, curves, forest
from components.reporting.methods import (
    LEVELS,
    bd_rate_of,
    benchmark_label,
    benchmark_order,
    method_look,
    method_order,
)
from components.reporting.numbers import DASH, PER_CENT
from components.reporting.order import pairs_of


def pairs(summary: dict) -> list[dict]:
    """Every (codec, MLLM) of a summary, in the order of the settings, with what the template shows of it."""
    found = pairs_of(summary)
    return [_pair(summary, codec, mllm, named=len(found) > 1) for codec, mllm in found]


def method_of(summary: dict, codec: str, method: str, mllm: str) -> dict | None:
    """`codecs.<codec>.<method>.<mllm>`, or None."""
    return summary["codecs"].get(codec, {}).get(method, {}).get(mllm)


def part_by_method(summary: dict, codec: str, mllm: str, part: str) -> dict[str, dict]:
    """Method -> `codecs.<codec>.<method>.<mllm>.<part>`, in the order of a table; empty where nobody was asked."""
    methods = summary["codecs"].get(codec, {})
    found = {method: by_mllm[mllm][part] for method, by_mllm in methods.items() if by_mllm.get(mllm, {}).get(part)}
    order = [*(["clean"] if found else []), *method_order(found.keys() - {"clean"}, codec)]
    return {method: found[method] for method in order}


def _pair(summary: dict, codec: str, mllm: str, named: bool) -> dict:
    results = {method: by_mllm[mllm] for method, by_mllm in summary["codecs"][codec].items() if mllm in by_mllm}
    clean = results.pop("clean", None)
    methods = method_order(results, codec)
    looks = {method: method_look(method, codec) for method in methods}
    benchmarks = benchmark_order(summary["benchmarks"])
    slug = f"{codec}-{mllm}"
    levels = [level for level in LEVELS if any(level in result.get("levels", {}) for result in results.values())]
    clean_levels = {level: rows[0]["score"] for level, rows in (clean or {}).get("levels", {}).items() if rows}

    def panel(key: str, title: str, ylabel: str = "", source: str = "curve") -> Panel:
        lines = [score_line(looks[name], results[name][source], key) for name in methods if source in results[name]]
        level = [Level(clean[source][0]["scores"][key], "clean")] if clean and clean.get(source) else []
        return Panel(title, lines, ylabel, levels=level)

    def level_panel(level: str) -> Panel:
        lines = [_level_line(looks[method], results[method]["levels"][level]) for method in methods]
        base = [Level(clean_levels[level], "clean")] if level in clean_levels else []
        return Panel(f"{level}-level", lines, "right, %" if level == levels[0] else "", levels=base)

    base = results[codec]
    drops = drop_panels(results, looks, levels, codec)
    compared = [method for method in methods if "bd_rate" in results[method] and method != codec]
    columns = ["mean", *benchmarks]
    pair = {
        "codec": codec,
        "mllm": mllm,
        "suffix": f"-{slug}" if named else "",
        "of": f", {looks[codec].label} and {mllm}" if named else "",
        "base_label": looks[codec].label,
        "benchmark_count": len(benchmarks),
        "method_looks": [looks[method] for method in methods],
        "mean_figure": curves(
            f"mean-{slug}", "Mean score over rate", [panel("mean", "Mean score", "points")], size=LARGE
        ),
        "benchmark_figure": curves(
            f"benchmarks-{slug}",
            "Score over rate per benchmark",
            [
                panel(name, benchmark_label(name), "points" if index % 3 == 0 else "")
                for index, name in enumerate(benchmarks)
            ],
        ),
        "score_columns": [benchmark_label(name) for name in columns],
        "score_rows": _score_rows(results, clean, methods, looks, columns, "curve"),
        "bd_columns": [*(looks[method].label for method in compared), "CoTAM, points at equal rate"],
        "bd_rows": [_bd_row(results, compared, name) for name in (*benchmarks, "mean", "average")],
        "forest": _forest(f"bd-{slug}", results["cotam"], looks["cotam"], benchmarks),
        "level_looks": [LEVELS[level] for level in levels],
        "level_columns": [f"{level}, points lost" for level in levels],
        "level_rows": _level_rows(base["levels"], levels),
        "level_figure": curves(f"levels-{slug}", "Score over rate per level", [level_panel(level) for level in levels]),
        "drop_figure": curves(f"drop-{slug}", "Points lost over rate per level", drops, size=MEDIUM, share_y=True),
        "train_looks": [looks[method] for method in methods if results[method].get("train_style")],
        "train_figure": "",
        "train_rows": [],
    }
    if any(result.get("train_style") for result in results.values()):
        pair["train_figure"] = curves(
            f"train-{slug}",
            "Mean score over rate on the styles of training",
            [panel("mean", "Mean score, styles of training", "points", "train_style")],
            size=LARGE,
        )
        pair["train_rows"] = _score_rows(results, clean, methods, looks, columns, "train_style")
    return pair


def score_line(look, curve: list[dict], key: str) -> Line:
    """A benchmark's score over rate, with its intervals where all are known."""
    points = sorted((point for point in curve if point["scores"].get(key) is not None), key=lambda point: point["bpp"])
    bands = [point.get("intervals", {}).get(key) for point in points]
    known = bool(bands) and all(bands)
    return Line(
        look,
        [point["bpp"] for point in points],
        [point["scores"][key] for point in points],
        [low for low, _ in bands] if known else None,
        [high for _, high in bands] if known else None,
    )


def _level_line(look, rows: list[dict]) -> Line:
    return interval_line(look, rows, "score", "low", "high")


def drop_panels(results: dict[str, dict], looks: dict, levels: list[str], codec: str) -> list[Panel]:
    """Points lost over rate on each level, side by side: the codec alone, and cotam."""
    return [
        Panel(
            looks[method].label,
            [_drop_line(LEVELS[level], results[method]["levels"][level]) for level in levels],
            "points lost" if index == 0 else "",
        )
        for index, method in enumerate(m for m in (codec, "cotam") if m in results)
    ]


def _drop_line(look, rows: list[dict]) -> Line:
    return interval_line(look, rows, "drop", "drop_low", "drop_high")


def interval_line(look, rows: list[dict], value: str, low: str, high: str) -> Line:
    """Rows with `bpp` as a series, by rising rate; with their intervals (keys `low` and `high`) where all are known."""
    rows = sorted(rows, key=lambda row: row["bpp"])
    known = bool(rows) and all(row.get(low) is not None and row.get(high) is not None for row in rows)
    return Line(
        look,
        [row["bpp"] for row in rows],
        [row[value] for row in rows],
        [row[low] for row in rows] if known else None,
        [row[high] for row in rows] if known else None,
    )


def _score_rows(results: dict, clean: dict | None, methods, looks, columns, key: str) -> list[dict]:
    def cells(point: dict) -> list:
        return [point["scores"].get(name) for name in columns]

    rows = []
    if clean and clean.get(key):
        first = cells(clean[key][0])
        rows.append({"method": "clean images", "quality": DASH, "bpp": None, "bare": None, "scores": first})
    for method in methods:
        for point in results[method].get(key) or []:
            rows.append(
                {
                    "method": looks[method].label,
                    "quality": point["quality"],
                    "bpp": point["bpp"],
                    "bare": point.get("bpp_without_header"),
                    "scores": cells(point),
                }
            )
    return rows


def _bd_row(results: dict, compared, name: str) -> dict:
    """BD-rates of a benchmark, or of "average", the mean of the benchmarks' own; last, CoTAM's BD-score."""
    rates = [bd_rate_of(results[method], name) for method in compared]
    cells = [{"value": value, "unit": PER_CENT, "sure": _side_of_zero(value), "there": True} for value in rates]
    gains = results["cotam"].get("bd_score", {})
    gain = gains.get(name)
    cells.append({"value": gain, "unit": "", "sure": _side_of_zero(gain, better=1), "there": name in gains})
    return {"label": benchmark_label(name), "cells": cells, "total": name == "mean"}


def _side_of_zero(value: dict | None, better: int = -1) -> str:
    """`good` when the whole interval lies on the better side of zero, `bad` when on the other, else nothing."""
    if not value or value.get("low") is None or value.get("high") is None:
        return ""
    side = 1 if value["low"] > 0 else -1 if value["high"] < 0 else 0
    return {better: "good", -better: "bad"}.get(side, "")


def _forest(name: str, result: dict, look, benchmarks) -> str:
    rows = []
    for key in (*benchmarks, "mean", "average"):
        value = bd_rate_of(result, key) or {}
        rows.append(Interval(benchmark_label(key), look, value.get("value"), value.get("low"), value.get("high")))
    return forest(name, "BD-rate per benchmark", rows, xlabel="BD-rate in per cent (left of zero saves bits)")


def _level_rows(levels: dict, order) -> list[dict]:
    rows = []
    for index, first in enumerate(levels[order[0]]):
        at = [levels[level][index] for level in order]
        cells = [{"value": row["drop"], "low": row["drop_low"], "high": row["drop_high"]} for row in at]
        most = _largest({level: row["drop"] for level, row in zip(order, at, strict=True)})
        rows.append({"label": first["quality"], "bpp": first["bpp"], "cells": cells, "most": most, "total": False})
    averages = {level: average_drop(levels[level]) for level in order}
    cells = [{"value": average} for average in averages.values()]
    rows.append({"label": "average", "bpp": None, "cells": cells, "most": _largest(averages), "total": True})
    return rows


def _largest(drops: dict[str, float]) -> str:
    """The level that loses most, or all that tie."""
    return " and ".join(level for level, drop in drops.items() if drop == max(drops.values()))


def average_drop(rows: list[dict]) -> float:
    """Points lost, averaged over the measured rates."""
    return sum(row["drop"] for row in rows) / len(rows)
