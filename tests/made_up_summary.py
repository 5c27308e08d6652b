"""A summary.json that no run made, but that one could have: smooth curves, sensible intervals, every optional part."""

from copy import deepcopy
from math import log2

BENCHMARKS = ("mme", "pope", "vqav2", "textvqa", "seedbench", "mmbench")
RATES = (0.08, 0.13, 0.19, 0.28, 0.41, 0.6, 0.9)
CLEAN = {name: 88.0 + index for index, name in enumerate(BENCHMARKS)}
SHIFT = {"elic": 0.0, "cotam": 0.55, "webp": -1.2, "jpeg": -2.6}
LEVELS = {"low": 9.0, "high": 11.0, "cross": 24.0}
_LANGUAGE = {"side": 128, "layers": 6, "width": 160}
KINDS = {
    "micro-llava": {"family": "llava", "tiles": False} | _LANGUAGE,
    "small-llava": {"family": "llava", "tiles": False} | _LANGUAGE | {"layers": 12},
    "micro-internvl": {"family": "internvl", "tiles": True} | _LANGUAGE,
    "micro-onevision": {"family": "llava_onevision", "tiles": True} | _LANGUAGE,
}
"""What the world's MLLMs are."""


def _lost(bpp: float, shift: float, most: float) -> float:
    return most / (1 + 2.2 ** (log2(bpp / 0.08) + shift))


def _point(method: str, quality: int, bpp: float) -> dict:
    scores = {name: CLEAN[name] - _lost(bpp, SHIFT[method], 14.0 + 3 * index) for index, name in enumerate(BENCHMARKS)}
    scores["mean"] = sum(scores.values()) / len(scores)
    intervals = {name: [score - 2.0, score + 1.8] for name, score in scores.items()}
    return {"quality": quality, "bpp": bpp, "bpp_without_header": bpp - 0.009, "scores": scores, "intervals": intervals}


def _level(method: str, level: str) -> list[dict]:
    rows = []
    for quality, bpp in enumerate(RATES):
        drop = _lost(bpp, SHIFT[method], LEVELS[level])
        rows.append(
            {
                "quality": quality,
                "bpp": bpp,
                "score": 92 - drop,
                "low": 90.5 - drop,
                "high": 93 - drop,
                "drop": drop,
                "drop_low": drop - 1.2,
                "drop_high": drop + 1.2,
            }
        )
    return rows


def _interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _method(method: str, codec: str) -> dict:
    scale = 1 if method in ("cotam", codec) else 2
    curve = [_point(method, quality, bpp * scale) for quality, bpp in enumerate(RATES)]
    found = {"curve": curve, "levels": {level: _level(method, level) for level in LEVELS}}
    if method in ("cotam", codec):
        found["train_style"] = curve[::3]
    if method == codec:
        found["cross_level_excess"] = {"low": _interval(7.6, 2), "high": _interval(6.6, 2)}
    if method != codec:
        base = {"cotam": -31.0, "webp": 63.0, "jpeg": 188.0}[method]
        found["bd_rate"] = {name: _interval(base + 3 * index, 6) for index, name in enumerate(("mean", *BENCHMARKS))}
        found["bd_rate_average"] = _interval(base + 10.5, 6)
        found["bd_score"] = {name: _interval(-base / 20, 0.8) for name in ("mean", *BENCHMARKS)}
        found["level_gains"] = {level: _interval(-base / 20, 0.8) for level in LEVELS}
    return found


def with_mllms(found: dict, names: list[str], codec: str = "elic") -> dict:
    """The same where several MLLMs gave the same answers: in the order of the names, each of its kind in `KINDS`."""
    [mllm] = found["codecs"][codec]["cotam"]
    for by_mllm in found["codecs"][codec].values():
        entry = by_mllm.pop(mllm)
        by_mllm |= {name: deepcopy(entry) for name in names}
    losses = found["adapter"].pop(f"{codec}-{mllm}")
    found["adapter"] = {f"{codec}-{name}": losses for name in names}
    found["order"]["mllms"] = names
    found["mllms"] = {name: KINDS[name] for name in names}
    return found


def summary(codec: str = "elic", mllm: str = "micro-llava") -> dict:
    """As docs/summary-schema.md says, for one codec and one MLLM; without the claims, which follow from the rest."""
    clean_scores = {**CLEAN, "mean": sum(CLEAN.values()) / len(CLEAN)}
    clean = {
        "curve": [{"quality": None, "bpp": None, "bpp_without_header": None, "scores": clean_scores}],
        "levels": {
            level: [{"quality": None, "bpp": None, "score": 92.0, "low": 91.0, "high": 93.0}] for level in LEVELS
        },
        "train_style": [{"quality": None, "bpp": None, "bpp_without_header": None, "scores": clean_scores}],
    }
    methods = {"clean": {mllm: clean}}
    methods |= {method: {mllm: _method(method, codec)} for method in (codec, "cotam", "jpeg", "webp")}
    rates = [{"quality": quality, "bpp": bpp, "psnr": 27 + 3 * log2(bpp / 0.08)} for quality, bpp in enumerate(RATES)]
    losses = {
        stage: [share * 0.75**quality for quality in range(7)]
        for stage, share in (("without", 0.5), ("warmup", 0.3), ("joint", 0.2))
    }
    return {
        "schema": 1,
        "order": {"codecs": [codec], "mllms": [mllm]},
        "mllms": {mllm: KINDS[mllm]} if mllm in KINDS else {},
        "image_pixels": 128 * 128,
        "benchmarks": list(BENCHMARKS),
        "codecs": {codec: methods},
        "photographs": {
            codec: {
                "images": ["astronaut", "coffee"],
                "plain": rates,
                "guided": [{**point, "psnr": point["psnr"] - 0.12} for point in rates],
            }
        },
        "map_bits": {codec: {"mean": 27.4, "max": 40, "cells": 16, "share": 0.011}},
        "allocation": {codec: {"raised": 31.0, "lowered": -22.0}},
        "adapter": {f"{codec}-{mllm}": {"qualities": list(range(7)), "low": losses, "high": losses}},
    }
