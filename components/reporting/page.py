"""The report as one HTML file that fetches nothing: text, tables, inline SVG and PNG data URIs.

`render` is a pure function of the summary, the settings and the pictures: equal inputs give equal bytes, so that DVC
may cache the page.
"""

from dataclasses import dataclass, field

from markupsafe import Markup

from components.reporting.claims import VERDICTS, Claim, levels_claim
from components.reporting.extras import adapter_sections, map_sentence, photographs_section
from components.reporting.methods import method_look
from components.reporting.numbers import DASH, number, per_cent
from components.reporting.pictures import ramp_css
from components.reporting.scores import method_of, pairs
from components.reporting.swatches import swatch
from components.reporting.tasks import tasks_section
from components.reporting.templating import environment, stylesheet
from components.reporting.verdict_list import claims_of
from components.reporting.videos import videos_section

CAUTIONS = (
    "The images are small drawn scenes and the models are small ones trained on such scenes. The method is the "
    "paper's; the numbers are this world's, not those of the paper's benchmarks.",
    "At 128 x 128 pixels a file's header weighs more than in a large image; rates without it stand in the table of all "
    "scores.",
)


@dataclass(frozen=True)
class Tile:
    """A picture with a name and a note under it; `src` is a data URI."""

    src: str
    name: str
    note: str
    alt: str
    smooth: bool = False


@dataclass(frozen=True)
class Pictures:
    """What is shown as images: rows of allocation maps, and questions answered before and after."""

    allocation: list[list[Tile]] = field(default_factory=list)
    examples: dict | None = None


def render(summary: dict, settings: dict, provenance: list[tuple[str, str]], pictures: Pictures = Pictures()) -> str:
    """Build the page.

    Args:
        summary: as in summary.json (docs/summary-schema.md).
        settings: the settings of the run, nested.
        provenance: what the run was made from: name and content hash or version.
        pictures: images to show; sections without any are left out.

    Returns:
        A whole HTML document.
    """
    templates = environment("report")
    templates.filters["number"] = number
    comparisons = pairs(summary)
    for pair in comparisons:
        base = method_of(summary, pair["codec"], pair["codec"], pair["mllm"])
        pair["level_claim"] = levels_claim(base, pair["base_label"])
        for key in ("mean_figure", "benchmark_figure", "level_figure", "drop_figure", "train_figure", "forest"):
            pair[key] = Markup(pair[key])
        pair["videos"] = videos_section(summary, pair["codec"], pair["mllm"])
        for key in ("figure", "drop_figure") if pair["videos"] else ():
            pair["videos"][key] = Markup(pair["videos"][key])
        pair["tasks"] = tasks_section(summary, pair["codec"], pair["mllm"])
        for key in ("figure", "forest") if pair["tasks"] else ():
            pair["tasks"][key] = Markup(pair["tasks"][key])
    first = comparisons[0]
    codec, mllm = first["codec"], first["mllm"]
    context = {
        "css": stylesheet(),
        "swatch": swatch,
        "verdicts": VERDICTS,
        "title": f"What CoTAM saves over {first['base_label']}",
        "lede": (
            f"An image codec tailored to multimodal LLMs, on {mllm} and {first['benchmark_count']} benchmarks: "
            "real files, decoded, and asked about."
        ),
        "main": _headline(summary, codec, mllm),
        "claims": claims_of(summary),
        "about": f"{mllm} and {first['base_label']}" if len(comparisons) > 1 else "",
        "comparisons": comparisons,
        "bootstrap": settings.get("evaluation", {}).get("bootstrap", DASH),
        "allocation": pictures.allocation,
        "map_bits": map_sentence(summary, codec),
        "ramp": ramp_css(),
        "examples": pictures.examples,
        "photographs": photographs_section(summary, codec),
        "adapters": adapter_sections(summary),
        "provenance": provenance,
        "settings": list(flatten(settings)),
    }
    context["notes"] = _notes(summary, context["claims"], codec, mllm)
    context["contents"] = _contents(context)
    return templates.get_template("page.html.j2").render(context)


def flatten(settings: dict, prefix: str = ""):
    """Nested settings as (dotted key, text), in their order."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _headline(summary: dict, codec: str, mllm: str) -> dict:
    cotam = method_of(summary, codec, "cotam", mllm)
    base = method_of(summary, codec, codec, mllm)
    clean = method_of(summary, codec, "clean", mllm)
    base_label = method_look(codec, codec).label
    bd = cotam["bd_rate"].get("mean")
    facts = []
    if clean:
        facts.append(
            {
                "name": "Score on clean images",
                "value": number(clean["curve"][0]["scores"]["mean"]),
                "note": "mean of the benchmarks, of 100",
            }
        )
    low_base = min(base["curve"], key=lambda point: point["bpp"])
    low_cotam = min(cotam["curve"], key=lambda point: point["bpp"])
    facts.append(
        {
            "name": "At the fewest bits",
            "value": f"{number(low_base['scores']['mean'])} → {number(low_cotam['scores']['mean'])}",
            "note": f"{base_label} at {number(low_base['bpp'], 3)} bpp, CoTAM at {number(low_cotam['bpp'], 3)}",
        }
    )
    bits = summary.get("map_bits", {}).get(codec)
    if bits and bits["cells"]:
        facts.append(
            {
                "name": "The map in a file",
                "value": f"{number(bits['mean'])} bits",
                "note": f"on average; {number(bits['max'], 0)} at most",
            }
        )
    return {
        "method_label": "CoTAM",
        "base_label": base_label,
        "bd": bd,
        "facts": facts,
        "reading": _reading(bd, cotam.get("bd_rate_average")),
    }


def _reading(bd: dict | None, average: dict | None) -> str:
    if not bd or bd.get("value") is None:
        return "The curves do not overlap in score, so that no saving can be stated."
    if bd.get("high") is None:
        text = "Its interval is not defined: too few resamples gave curves that overlap."
    elif bd["high"] < 0:
        text = "BD-rate of the mean score. The whole interval is below zero: it saves bits."
    elif bd["low"] > 0:
        text = "BD-rate of the mean score. The whole interval is above zero: it costs bits."
    else:
        text = "BD-rate of the mean score. The interval includes zero: no saving is shown."
    if average and average.get("value") is not None:
        text += f" The benchmarks' own BD-rates average {per_cent(average['value'])}."
    return text


def _notes(summary: dict, claims: list[Claim], codec: str, mllm: str) -> list[str]:
    """What a fair reader should know: first what failed, then what the numbers cannot say."""
    notes = [f"{claim.id} {VERDICTS[claim.verdict]}. {claim.here}" for claim in claims if claim.verdict != "holds"]
    result = method_of(summary, codec, "cotam", mllm)
    undefined = [name for name, value in result["bd_rate"].items() if not value or value.get("value") is None]
    if undefined:
        notes.append(f"The BD-rate is not defined for {', '.join(undefined)}: the curves share no range of scores.")
    return notes + list(CAUTIONS)


def _contents(context: dict) -> list[tuple[str, str]]:
    found = [("claims", "Claims and verdicts")]
    for pair in context["comparisons"]:
        suffix, of = pair["suffix"], pair["of"].replace(",", ":")
        found += [
            (f"scores{suffix}", f"Score against rate{of}"),
            (f"bd-rate{suffix}", f"Bits saved{of}"),
            (f"levels{suffix}", f"Which questions suffer{of}"),
        ]
        if pair["train_rows"]:
            found.append((f"train-style{suffix}", f"Styles of training{of}"))
        if pair["videos"]:
            found.append((f"videos{suffix}", f"Videos{of}"))
        if pair["tasks"]:
            found.append((f"tasks{suffix}", f"Benchmarks of lmms-eval{of}"))
    if context["allocation"]:
        found.append(("allocation", "Where the bits go"))
    if context["examples"]:
        found.append(("examples", "Before and after"))
    if context["photographs"]:
        found.append(("photographs", "Photographs"))
    for adapter in context["adapters"]:
        found.append((f"adapter{adapter['suffix']}", f"Adapter training{adapter['of'].replace(',', ':')}"))
    return [*found, ("settings", "Settings and revisions")]
