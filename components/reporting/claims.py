"""The paper's claims beside what was found: holds, does not hold, or not settled.

A verdict follows from the numbers by a rule that is written here, so that nobody has to argue a result into shape.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from components.reporting.methods import LEVELS, benchmark_label, method_look
from components.reporting.numbers import per_cent, signed
from components.reporting.scores import average_drop, method_of

PAPER_BD_RATES = {"elic": -35.99, "dcae": -31.05}  # Table 2
VERDICTS = {"holds": "holds", "fails": "does not hold", "unclear": "not settled"}


@dataclass(frozen=True)
class Claim:
    """A claim by its id, the paper's words, what was found here, and `holds`, `fails` or `unclear`; of a claim about
    several MLLMs also the verdict on each."""

    id: str
    paper: str
    here: str
    verdict: str
    mllms: dict[str, str] = field(default_factory=dict)


def side_verdict(value: dict | None, better: int = 1) -> str:
    """By which side of zero a whole 95 % interval lies on: `holds` on the better one (1: above), `fails` on the other,
    `unclear` where it lies on both, or where there is none."""
    if not value or value.get("low") is None or value.get("high") is None:
        return "unclear"
    side = 1 if value["low"] > 0 else -1 if value["high"] < 0 else 0
    return {better: "holds", -better: "fails"}.get(side, "unclear")


def worst(verdicts: Iterable[str]) -> str:
    """Of several verdicts: does not hold, else not settled, else holds."""
    verdicts = set(verdicts)
    return next(word for word in ("fails", "unclear", "holds") if word in verdicts)


def spoken(value: dict | None, text: Callable[[float], str], what: str) -> str:
    """`<what>-31.0 % (-37.0 % to -25.0 %)`, or what of it is not defined."""
    if not value or value.get("value") is None:
        return f"{what}not defined"
    ends = [value.get("low"), value.get("high")]
    interval = "no interval" if None in ends else " to ".join(map(text, ends))
    return f"{what}{text(value['value'])} ({interval})"


def levels_claim(base: dict, codec_label: str) -> Claim:
    """C2: cross-level questions suffer most. Holds when the codec alone loses more on them than on those of each other
    level, averaged over rates, with the whole interval of each difference; does not when less on those of one."""
    paper = "Questions that need cross-level features, such as counting, suffer most from compression."
    levels, excess = base["levels"], base.get("cross_level_excess", {})
    others = [level for level in LEVELS if level in levels and level != "cross"]
    if "cross" not in levels or not others or not excess.keys() >= set(others):
        return Claim("C2", paper, "Not measured.", "unclear")
    rates = len(levels["cross"])
    wins = sum(
        row["drop"] > max(levels[level][index]["drop"] for level in others) for index, row in enumerate(levels["cross"])
    )
    numbers = (
        f"averaged over {rates} rates, {codec_label} costs {average_drop(levels['cross']):.1f} points on cross-level "
        "questions, "
        + " and ".join(spoken(excess[level], signed, f"more than on {level}-level ones by ") for level in others)
        + f"; cross-level questions lose most at {wins} of {rates} rates."
    )
    verdict = worst(side_verdict(excess[level]) for level in others)
    said = {
        "holds": "Cross-level questions suffer most",
        "fails": "It does not hold here",
        "unclear": "It is not settled here",
    }
    return Claim("C2", paper, f"{said[verdict]}: {numbers}", verdict)


def bd_rate_claim(bd_rate: dict, codec: str, mllm: str) -> Claim:
    """C7: CoTAM saves bits at equal score. Holds when the mean's whole interval is below zero."""
    label = method_look(codec, codec).label
    paper_value = PAPER_BD_RATES.get(codec)
    paper = f"CoTAM needs fewer bits than {label} at equal score" + (
        f": {per_cent(paper_value, 2)} on LLaVA-1.5-7B, averaged over six benchmarks." if paper_value else "."
    )
    mean = bd_rate.get("mean") or {}
    if mean.get("value") is None:
        return Claim("C7", paper, "The mean BD-rate is not defined: the curves do not overlap.", "unclear")
    here = f"{per_cent(mean['value'])} with {mllm}"
    if mean.get("low") is None:
        return Claim("C7", paper, f"{here}; its interval is not defined.", "unclear")
    here += f", 95 % interval {per_cent(mean['low'])} to {per_cent(mean['high'])}."
    worst = [
        benchmark_label(name)
        for name, value in bd_rate.items()
        if name != "mean" and (value or {}).get("value") is not None and value["value"] >= 0
    ]
    if worst:
        here += f" It saves nothing on {', '.join(worst)}."
    return Claim("C7", paper, here, side_verdict(mean, better=-1))


def both_ends_claim(cotam: dict) -> Claim | None:
    """C1: CoTAM keeps low-level and high-level questions alike. Holds when the points that it gains over the codec
    alone at equal rate (BD-score) have their whole interval above zero on both levels; does not when below on one."""
    paper = "Human-centric codecs do well on low-level questions only; CoTAM does well at both levels."
    gains = cotam.get("level_gains", {})
    if not {"low", "high"} <= gains.keys():
        return None
    here = "Points gained over the codec alone at equal rate: "
    here += ", ".join(spoken(gains[level], signed, f"{level}-level ") for level in LEVELS if level in gains) + "."
    return Claim("C1", paper, here, worst(side_verdict(gains[level]) for level in ("low", "high")))


def map_claim(bits: dict) -> Claim:
    """C17: 128 bits for a map of 8 x 8 cells, which is 2 per cell; holds when the mean is at most that."""
    cells = bits["cells"]
    per_cell = bits["mean"] / cells
    here = (
        f"{bits['mean']:.1f} bits on average and {bits['max']:.0f} at most for {cells:g} cells, "
        f"{per_cell:.2f} bits per cell ({100 * bits['share']:.2f} % of a file)."
    )
    return Claim(
        "C17",
        "The map costs 128 bits for an image of 336 x 336 pixels (64 cells, 2 bits per cell).",
        here,
        "holds" if per_cell <= 2 else "fails",
    )


def photographs_claim(loss: float | None) -> Claim:
    """C15: PSNR loses little from guidance; "little" is half a decibel at equal rate."""
    paper = "PSNR loses little from guidance."
    if loss is None:
        return Claim("C15", paper, "The curves with and without guidance do not overlap.", "unclear")
    here = f"{signed(-loss, 2)} dB at equal rate, averaged over the overlap, on photographs."
    return Claim("C15", paper, here, "holds" if loss <= 0.5 else "fails")


def find_claims(summary: dict, codec: str, mllm: str) -> list[Claim]:
    """Every claim that the summary can answer for one codec and one MLLM, by id."""
    cotam, base = (method_of(summary, codec, method, mllm) for method in ("cotam", codec))
    label = method_look(codec, codec).label
    found = [
        both_ends_claim(cotam),
        levels_claim(base, label),
        bd_rate_claim(cotam["bd_rate"], codec, mllm),
    ]
    photographs = summary.get("photographs", {}).get(codec)
    if photographs:
        found.append(photographs_claim(loss_at_equal_rate(photographs["plain"], photographs["guided"])))
    bits = summary.get("map_bits", {}).get(codec)
    if bits and bits["cells"]:  # else no file has a map
        found.append(map_claim(bits))
    allocation = summary.get("allocation", {}).get(codec)
    if allocation:
        found.append(allocation_claim(allocation))
    return [claim for claim in found if claim]


def allocation_claim(change: dict) -> Claim:
    """C19: bits rise where the map raises the quality and fall where it lowers it, against a file of about the same
    size without a map. Does not hold when one of the two fails; not settled when no region was raised, or none was
    lowered."""
    parts, verdicts = [], []
    for half, verb, sign in (("raised", "raises", 1), ("lowered", "lowers", -1)):
        if change[half] is None:
            parts.append(f"no region was {half}, so that half of the claim is not tested")
            verdicts.append("unclear")
        else:
            parts.append(f"where the map {verb} the quality, bits change by {per_cent(change[half])}")
            verdicts.append("holds" if sign * change[half] > 0 else "fails")
    here = f"Against a file of about the same size without a map: {'; '.join(parts)}."
    return Claim("C19", "More bits go where the map says.", here, worst(verdicts))


def loss_at_equal_rate(plain: list[dict], guided: list[dict]) -> float | None:
    """Decibels that guidance costs, averaged over the guided points whose rate the plain curve spans (there read off
    linearly in log rate); None where there are none."""
    import numpy as np

    plain = sorted(plain, key=lambda row: row["bpp"])
    low, high = plain[0]["bpp"], plain[-1]["bpp"]
    inside = [row for row in guided if low <= row["bpp"] <= high]
    if not inside:
        return None
    expected = np.interp(
        np.log([row["bpp"] for row in inside]), np.log([row["bpp"] for row in plain]), [row["psnr"] for row in plain]
    )
    return float(np.mean(expected - [row["psnr"] for row in inside]))
