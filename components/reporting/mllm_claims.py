"""Claims about several MLLMs: a larger LLaVA (C8), and those that cut large images into tiles (C10).

What kind an MLLM is stands in the summary (`mllms`). Each has a verdict of its own by the rule of C7, and the claim has
the worst of them.
"""

from components.mllm_kinds import LLAVA
from components.reporting.claims import VERDICTS, Claim, side_verdict, spoken, worst
from components.reporting.methods import method_look
from components.reporting.numbers import number, per_cent, signed
from components.reporting.order import mllms_of
from components.reporting.scores import method_of


def larger_llava_claim(summary: dict, codec: str) -> Claim | None:
    """C8: the gain holds on a larger LLaVA-1.5, which reads the same files. Judged on every one that is larger than the
    smallest in the run; what the smallest saves is said beside it."""
    kinds = _kinds(summary, codec)
    sizes = {mllm: kind["layers"] * kind["width"] ** 2 for mllm, kind in kinds.items() if kind["family"] == LLAVA}
    if not sizes or max(sizes.values()) == min(sizes.values()):
        return None
    verdicts = {mllm: _verdict(summary, codec, mllm) for mllm in sizes if sizes[mllm] > min(sizes.values())}
    said = []
    for mllm in sorted(sizes, key=sizes.get):  # of two of a size, the first named comes first
        who = f"{mllm}, whose language model has {kinds[mllm]['layers']} layers of width {kinds[mllm]['width']}"
        said.append(_sentence(summary, codec, mllm, who, verdicts.get(mllm)))
    here = f"All are asked about the same files. {' '.join(said)}"
    return Claim("C8", "The gain holds on LLaVA-1.5-13B too.", here, worst(verdicts.values()), verdicts)


def tiles_claim(summary: dict, codec: str) -> Claim | None:
    """C10: the gain holds on MLLMs that cut images of high resolution into tiles. Judged on each; on images that fit
    one tile it is not tested. Videos are C23."""
    kinds = {mllm: kind for mllm, kind in _kinds(summary, codec).items() if kind["tiles"]}
    pixels = summary.get("image_pixels")
    if not kinds or pixels is None:
        return None
    verdicts, said = {}, []
    for mllm, kind in kinds.items():
        who = f"{mllm}, whose tiles are {kind['side']} pixels wide"
        if pixels > kind["side"] ** 2:
            verdicts[mllm] = _verdict(summary, codec, mllm)
            said.append(_sentence(summary, codec, mllm, who, verdicts[mllm]))
        else:
            verdicts[mllm] = "unclear"
            said.append(f"{who}: not tested, for these images fit one tile.")
    here = f"Images of {pixels:,.0f} pixels, on average. {' '.join(said)}"
    paper = "The gain holds on LLaVA-OneVision-7B and InternVL2-8B, with images of high resolution."
    return Claim("C10", paper, here, worst(verdicts.values()), verdicts)


def _kinds(summary: dict, codec: str) -> dict[str, dict]:
    known = summary.get("mllms", {})
    return {mllm: known[mllm] for mllm in mllms_of(summary, codec) if known.get(mllm)}


def _verdict(summary: dict, codec: str, mllm: str) -> str:
    return side_verdict(method_of(summary, codec, "cotam", mllm)["bd_rate"].get("mean"), better=-1)


def _sentence(summary: dict, codec: str, mllm: str, who: str, verdict: str | None) -> str:
    """What one MLLM saves, its points at equal rate, and the verdict on it."""
    cotam, clean = (method_of(summary, codec, method, mllm) for method in ("cotam", "clean"))
    if clean:
        who += f" and which scores {number(clean['curve'][0]['scores']['mean'])} on clean images"
    saved = spoken(cotam["bd_rate"].get("mean"), per_cent, f"BD-rate against {method_look(codec, codec).label} ")
    gained = spoken(cotam.get("bd_score", {}).get("mean"), signed, "points at equal rate ")
    end = f": {VERDICTS[verdict]}" if verdict else ""
    return f"{who}: {saved}; {gained}{end}."
