"""Medians, quartiles and limits of what `cotam bench speed` measured."""

import statistics
from collections.abc import Iterable, Sequence

WAYS = ("encode", "decode")
LIMITS = {"between": 45.0, "loss": 0.1, "rate": 0.5}  # dB, dB, per cent more than CompressAI's


def summarize(pairs: Sequence[dict]) -> dict:
    """Medians and quartiles, and whether the limits of quality and rate hold."""
    result: dict = {}
    for way in WAYS:
        clock = [pair[way]["compressai"][0] / pair[way]["ours"][0] for pair in pairs]
        processor = [pair[way]["compressai"][1] / pair[way]["ours"][1] for pair in pairs]
        result[way] = {
            "compressai_s": middle(pair[way]["compressai"][0] for pair in pairs),
            "ours_s": middle(pair[way]["ours"][0] for pair in pairs),
            "compressai_processor_s": middle(pair[way]["compressai"][1] for pair in pairs),
            "ours_processor_s": middle(pair[way]["ours"][1] for pair in pairs),
            "times_as_fast": spread(clock),
            "times_as_fast_by_processor_time": spread(processor),
            "stages": {who: _stages([pair[way]["stages"][who] for pair in pairs]) for who in ("ours", "compressai")},
        }
    ours, theirs = (sum(pair["bytes"][who] for pair in pairs) for who in ("ours", "compressai"))
    result["rate_percent"] = 100 * (ours / theirs - 1)
    result["psnr"] = statistics.fmean(pair["psnr"]["ours"] for pair in pairs)
    result["loss"] = statistics.fmean(pair["psnr"]["compressai"] - pair["psnr"]["ours"] for pair in pairs)
    for name in ("between", "between_float", "between_float_and_compressai"):
        values = [pair[name] for pair in pairs if name in pair]
        result[name] = {"mean": statistics.fmean(values), "least": min(values)}
    result["within_limits"] = bool(
        result["between"]["least"] > LIMITS["between"]
        and result["loss"] < LIMITS["loss"]
        and result["rate_percent"] < LIMITS["rate"]
    )
    return result


def middle(values: Iterable[float]) -> float:
    """The median."""
    return round(statistics.median(values), 4)


def spread(values: list[float]) -> dict:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": round(middle, 3), "lower_quartile": round(low, 3), "upper_quartile": round(high, 3)}


def _stages(found: list[dict]) -> dict:
    names = list(dict.fromkeys(name for one in found for name in one if name != "other"))
    return {name: middle(one.get(name, 0.0) for one in found) for name in [*names, "other"]}
