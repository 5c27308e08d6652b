"""What the page and the terminal say about videos: `clips` in summary.json, where an MLLM was asked about any."""

from components.evaluation.streams import CLIP_BENCHMARK
from components.reporting.claims import Claim, side_verdict, worst
from components.reporting.figures import LARGE, MEDIUM, Level, Panel, curves
from components.reporting.methods import LEVELS, method_look
from components.reporting.numbers import DASH, number, per_cent
from components.reporting.order import mllms_of
from components.reporting.scores import drop_panels, part_by_method, score_line

PAPER = "Coding the frames of a video one by one, each with its own map, serves video MLLMs."


def clips_of(summary: dict, codec: str, mllm: str) -> dict[str, dict]:
    """Method -> what it did for videos, in the order of a table; empty where none were asked about."""
    return part_by_method(summary, codec, mllm, "clips")


def videos_section(summary: dict, codec: str, mllm: str) -> dict | None:
    """What the template shows of one codec and MLLM; None where no videos were asked about."""
    clips = clips_of(summary, codec, mllm)
    if not clips:
        return None
    clean = clips.pop("clean")
    looks = {method: method_look(method, codec) for method in clips}
    lines = [score_line(looks[method], clips[method]["curve"], CLIP_BENCHMARK) for method in clips]
    level = Level(clean["curve"][0]["scores"][CLIP_BENCHMARK], "clean")
    levels = [name for name in LEVELS if any(row["drop"] is not None for row in clips[codec]["levels"].get(name, []))]
    drops = drop_panels(clips, looks, levels, codec)
    slug = f"{codec}-{mllm}"
    return {
        "looks": list(looks.values()),
        "level_looks": [LEVELS[name] for name in levels],
        "figure": curves(
            f"videos-{slug}",
            "Accuracy over rate, videos",
            [Panel("Videos", lines, "right, %", levels=[level])],
            size=LARGE,
        ),
        "drop_figure": curves(
            f"video-drop-{slug}", "Points lost over rate per level, videos", drops, size=MEDIUM, share_y=True
        ),
        "reading": _found(clips, clean, mllm, looks[codec].label),
        "gain": _gained(clips["cotam"]["bd_score"][CLIP_BENCHMARK], looks[codec].label),
        "level_columns": [f"{name}, points lost" for name in levels],
        "rows": rows({"clean": clean} | clips, codec, levels),
    }


def rows(clips: dict[str, dict], codec: str, levels: list[str]) -> list[dict]:
    """Every method and quality: rate, accuracy with its interval, and what is lost by level."""
    found = []
    for method, entry in clips.items():
        for index, point in enumerate(entry["curve"]):
            interval = point["intervals"][CLIP_BENCHMARK] or (None, None)
            lost = [entry["levels"][name][index].get("drop") for name in levels]
            found.append(
                {
                    "method": "clean frames" if method == "clean" else method_look(method, codec).label,
                    "quality": DASH if point["quality"] is None else point["quality"],
                    "bpp": point["bpp"],
                    "bare": point["bpp_without_header"],
                    "score": {"value": point["scores"][CLIP_BENCHMARK], "low": interval[0], "high": interval[1]},
                    "lost": lost,
                }
            )
    return found


def videos_claim(summary: dict, codec: str) -> Claim | None:
    """C23: holds when for every MLLM that takes videos the whole interval of CoTAM's BD-rate on them, against the codec
    alone coding the same frames, is below zero; does not hold when for one of them it is above."""
    sentences, verdicts = [], {}
    for mllm in mllms_of(summary, codec):
        clips = clips_of(summary, codec, mllm)
        if not clips:
            continue
        rate = clips["cotam"]["bd_rate"][CLIP_BENCHMARK]
        sentences.append(_found(clips, clips["clean"], mllm, method_look(codec, codec).label))
        verdicts[mllm] = side_verdict(rate, better=-1)
    if not verdicts:
        return None
    return Claim("C23", PAPER, " ".join(sentences), worst(verdicts.values()), verdicts)


def _found(clips: dict[str, dict], clean: dict, mllm: str, base: str) -> str:
    """What came of it, in words."""
    rate, best = clips["cotam"]["bd_rate"][CLIP_BENCHMARK], clips["cotam"]["curve"][-1]
    kept = (
        f"{mllm} answers {number(clean['curve'][0]['scores'][CLIP_BENCHMARK])} % of the questions about clean frames "
        f"rightly, and {number(best['scores'][CLIP_BENCHMARK])} % at CoTAM's {number(best['bpp'], 3)} bits per pixel"
    )
    if rate["value"] is None:
        return f"{kept}; the BD-rate against {base} is not defined: the curves share no range of scores."
    said = f"{kept}; BD-rate against {base} {per_cent(rate['value'])}"
    if rate["low"] is None:
        return f"{said}, whose interval is not defined."
    return f"{said}, 95 % interval {per_cent(rate['low'])} to {per_cent(rate['high'])}."


def _gained(gain: dict, base: str) -> str:
    """The same the other way round: points at equal rate."""
    if gain["value"] is None:
        return f"Points at equal rate are not defined: CoTAM and {base} share no range of rates."
    said = f"Points over {base} at equal rate: {number(gain['value'], sign=True)}"
    if gain["low"] is None:
        return f"{said}; the interval is not defined."
    return f"{said}, 95 % interval {number(gain['low'], sign=True)} to {number(gain['high'], sign=True)}."
