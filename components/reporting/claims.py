"""The paper's claims beside what was found: holds, does not hold, or not settled.

A verdict follows from the numbers by a rule that is written here, so that nobody has to argue a result into shape.
"""

from dataclasses import dataclass

from components.reporting.methods import benchmark_label, method_look
from components.reporting.numbers import per_cent, signed
from components.reporting.scores import average_drop, method_of

PAPER_BD_RATES = {"elic": -35.99, "dcae": -31.05}  # Table 2
VERDICTS = {"holds": "holds", "fails": "does not hold", "unclear": "not settled"}


@dataclass(frozen=True)
class Claim:
    """A claim by its id, the paper's words, what was found here, and `holds`, `fails` or `unclear`."""

    id: str
    paper: str
    here: str
    verdict: str


def levels_claim(levels: dict[str, list[dict]], codec_label: str) -> Claim:
    """C2: cross-level questions suffer most. Holds when their loss, averaged over rates, is the largest, and largest at
    most rates too; does not hold when another level's average loss is larger."""
    paper = "Questions that need cross-level features, such as counting, suffer most from compression."
    averages = {level: average_drop(rows) for level, rows in levels.items()}
    cross = averages.get("cross")
    others = {level: drop for level, drop in averages.items() if level != "cross"}
    if cross is None or not others:
        return Claim("C2", paper, "Not measured.", "unclear")
    rival = max(others, key=others.get)
    rates = len(levels["cross"])
    wins = sum(
        row["drop"] > max(levels[level][index]["drop"] for level in others) for index, row in enumerate(levels["cross"])
    )
    numbers = (
        f"averaged over {rates} rates, {codec_label} costs {cross:.1f} points on cross-level questions and "
        f"{' and '.join(f'{drop:.1f} on {level}-level' for level, drop in others.items())} ones; "
        f"cross-level questions lose most at {wins} of {rates} rates."
    )
    if cross <= others[rival]:
        return Claim("C2", paper, f"It does not hold here: {rival}-level questions suffer most; {numbers}", "fails")
    if 2 * wins <= rates:
        return Claim("C2", paper, f"It holds on average only: {numbers}", "unclear")
    return Claim("C2", paper, f"Cross-level questions suffer most: {numbers}", "holds")


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
    verdict = "holds" if mean["high"] < 0 else "fails" if mean["low"] > 0 else "unclear"
    return Claim("C7", paper, here, verdict)


def both_ends_claim(base: dict, cotam: dict) -> Claim | None:
    """C1: CoTAM keeps low-level and high-level questions alike. Compared at equal rate: the codec's losses are read off
    at CoTAM's rates. Holds when CoTAM loses less on each level."""
    paper = "Human-centric codecs do well on low-level questions only; CoTAM does well at both levels."
    gains = {
        level: gain
        for level in ("low", "high", "cross")
        if level in base and level in cotam
        if (gain := _gain_at_equal_rate(base[level], cotam[level])) is not None
    }
    if not {"low", "high"} <= gains.keys():
        return None
    here = (
        "Points gained over the codec alone at equal rate: "
        + ", ".join(f"{signed(gain)} {level}-level" for level, gain in gains.items())
        + "."
    )
    return Claim("C1", paper, here, "holds" if min(gains.values()) > 0 else "fails")


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
    """Every claim that the summary can answer for a codec and an MLLM, by id."""
    cotam, base = (method_of(summary, codec, method, mllm) for method in ("cotam", codec))
    label = method_look(codec, codec).label
    found = [
        both_ends_claim(base["levels"], cotam["levels"]),
        levels_claim(base["levels"], label),
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
    verdict = next(word for word in ("fails", "unclear", "holds") if word in verdicts)
    here = f"Against a file of about the same size without a map: {'; '.join(parts)}."
    return Claim("C19", "More bits go where the map says.", here, verdict)


def loss_at_equal_rate(plain: list[dict], guided: list[dict]) -> float | None:
    """Decibels that guidance costs, averaged over the guided points whose rate the plain curve spans."""
    gain = _gain_at_equal_rate(plain, guided, "psnr")
    return None if gain is None else -gain


def _gain_at_equal_rate(base: list[dict], other: list[dict], key: str = "score") -> float | None:
    """What `other` has more of than `base`, read off linearly in log rate at those points of `other` whose rate `base`
    spans, and averaged; None where there is none."""
    import numpy as np

    base = sorted(base, key=lambda row: row["bpp"])
    low, high = base[0]["bpp"], base[-1]["bpp"]
    inside = [row for row in other if low <= row["bpp"] <= high]
    if not inside:
        return None
    expected = np.interp(
        np.log([row["bpp"] for row in inside]), np.log([row["bpp"] for row in base]), [row[key] for row in base]
    )
    return float(np.mean([row[key] for row in inside] - expected))
