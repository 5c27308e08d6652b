"""The paper's claims about what CoTAM is made of and compared with, each as comparisons between variants."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from components.config import Settings
from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.variant_results import Results
from components.reporting.methods import benchmark_label
from components.reporting.variant_numbers import below, level_drop, minus, over, saved, unevenness, unmeasured, wasted
from components.reporting.verdicts import FAILS, SHOWN, WORST_FIRST, Comparison, Expectation, Number, Verdict

TOLERANCE = 2.0
"""Per cent of bits: BD-rates that differ by no more are "about the same" (C21); no more is "little" (C20, C22)."""
ABOUT_THE_SAME = (-TOLERANCE, TOLERANCE)


def claims(settings: Settings) -> Iterator[tuple[str, str, list[Expectation]]]:
    """(id, the paper's words, what it expects). A sweep is over those variants that change that one setting alone."""
    yield (
        "C1",
        "The base codec does well on low-level tasks, Bridge-d1 on high-level ones, and CoTAM on both (Fig. 1ab).",
        [
            Expectation("CoTAM over the codec alone, low-level questions", over("full", on="low", of_levels=True)),
            Expectation("CoTAM over the codec alone, high-level questions", over("full", on="high", of_levels=True)),
            Expectation(
                "Bridge-d1 over the codec alone, high-level more than low-level",
                minus(over("bridge-d1", on="high", of_levels=True), over("bridge-d1", on="low", of_levels=True)),
            ),
            Expectation("Bridge-d1 over the codec alone, high-level questions", over("bridge-d1", None, "high", True)),
            Expectation("CoTAM over Bridge-d1, low-level questions", over("full", "bridge-d1", "low", True)),
            Expectation("CoTAM over Bridge-d1, high-level questions", over("full", "bridge-d1", "high", True)),
        ],
    )
    yield (
        "C2",
        "Questions that need cross-level features suffer most from compression (Fig. 1cd).",
        [
            Expectation("lost on cross-level questions, more than on low-level ones", level_drop("cross", "low")),
            Expectation("lost on cross-level questions, more than on high-level ones", level_drop("cross", "high")),
        ],
    )
    yield (
        "C7",
        "CoTAM saves bits at equal score against the base codec, Bridge-d1 and ICMH-Adapt (Fig. 7, Table 2).",
        [
            Expectation("bits saved, CoTAM against the codec alone", saved("full"), "%"),
            Expectation("bits saved, CoTAM against Bridge-d1", saved("full", "bridge-d1"), "%"),
            Expectation("bits saved, CoTAM against ICMH-Adapt", saved("full", "icmh-adapt"), "%"),
        ],
    )
    yield (
        "C9",
        "With the codec fine-tuned too, CoTAM beats Bridge-d3, and both beat the base codec (Fig. 8).",
        [
            Expectation("bits saved, CoTAM-FT against Bridge-d3", saved("cotam-ft", "bridge-d3"), "%"),
            Expectation("bits saved, CoTAM-FT against the codec alone", saved("cotam-ft"), "%"),
            Expectation("bits saved, Bridge-d3 against the codec alone", saved("bridge-d3"), "%"),
            Expectation(
                "bits saved, CoTAM-FT against ICMH-Adapt, whose encoder learns too",
                saved("cotam-ft", "icmh-adapt"),
                "%",
                low=-float("inf"),
            ),
        ],
    )
    yield (
        "C11",
        "Without the adapter CoTAM collapses, without reconstruction it loses more on TextVQA and SEED-Bench than on "
        "MME, without guidance a little everywhere (Fig. 10).",
        [
            Expectation("full over no adapter", over("full", "no-adapter")),
            Expectation("the codec alone, without maps, over no adapter", below("no-adapter")),
            *_everywhere("the codec alone, without maps, over no adapter", partial(below, "no-adapter")),
            Expectation("full over no reconstruction", over("full", "no-reconstruction")),
            Expectation("full over no guidance", over("full", "no-guidance")),
            *_everywhere("full over no guidance", partial(over, "full", "no-guidance")),
            Expectation("full over no guidance with an adapter of its own", over("full", "no-guidance-own")),
            Expectation(
                "no guidance, the shared adapter over one of its own",
                over("no-guidance", "no-guidance-own"),
                low=-float("inf"),
            ),
            Expectation(
                "lost without the adapter, more than without guidance",
                minus(over("full", "no-adapter"), over("full", "no-guidance")),
            ),
            Expectation(
                "lost without reconstruction on TextVQA and SEED-Bench, more than on MME",
                unevenness("no-reconstruction"),
            ),
        ],
    )
    yield (
        "C12",
        "The high-level loss alone and the low-level loss alone are both worse than the two together (Fig. 11a).",
        [
            Expectation("both losses over the high-level one alone", over("full", "high-only")),
            Expectation("both losses over the low-level one alone", over("full", "low-only")),
            Expectation(_without_warmup(settings), over("no-warmup", "high-only")),
        ],
    )
    yield (
        "C13",
        "On high-resolution images hierarchical guidance is better than global guidance (Fig. 11b).",
        [*_scopes(settings)]
        or [
            Expectation(
                "hierarchical over global guidance, images of several tiles",
                unmeasured("variants on images of several tiles, which the profile `world` has"),
            )
        ],
    )
    usual_layers = _layers(settings.guidance.layers)
    layers = _changing("layers", settings)
    yield (
        "C14",
        "Guidance by the mean of the tower's first three layers is best; deeper layers hurt (Fig. 11c).",
        [Expectation(f"{usual_layers} over {name}", over("full", name)) for name in layers or ["layers-9-11"]],
    )
    yield (
        "C20",
        "Fine-tuning the MLLM gains little, fine-tuning the codec through the MLLM collapses, the adapter works "
        "(Fig. 17).",
        [
            Expectation("CoTAM over the codec alone", over("full")),
            Expectation("CoTAM's gain over twice that of the fine-tuned MLLM", minus(over("full"), over("mft"), 2.0)),
            Expectation("bits saved, the fine-tuned MLLM against its codec alone", saved("mft"), "%", *ABOUT_THE_SAME),
            Expectation("the codec alone over the codec fine-tuned through the MLLM", below("cft")),
            Expectation("bits lost, the codec fine-tuned through the MLLM against the codec alone", wasted("cft"), "%"),
        ],
    )
    usual = settings.guidance.k
    stable = {name: k for name, k in _changing("k", settings).items() if 0.45 <= k <= 0.85}
    yield (
        "C21",
        "Any k from 0.45 to 0.85 gives about the same gain, and more than no guidance (Fig. 18a).",
        [
            Expectation(f"bits saved, k = {usual:g} against no guidance", saved("full", "no-guidance"), "%"),
            *(
                expectation
                for name, k in (stable or {"k-045": 0.45}).items()
                for expectation in (
                    Expectation(f"bits saved, k = {k:g} against no guidance", saved(name, "no-guidance"), "%"),
                    Expectation(f"bits saved, k = {k:g} against {usual:g}", saved(name, "full"), "%", *ABOUT_THE_SAME),
                )
            ),
        ],
    )
    many = settings.guidance.levels
    levels = {name: levels for name, levels in _changing("levels", settings).items() if levels > 1}
    yield (
        "C22",
        "Three levels are better than one, and more help little or hurt (Fig. 18b).",
        [
            Expectation(f"bits saved, {many} levels against 1", saved("full", "no-guidance"), "%"),
            Expectation(
                f"bits saved, {many} levels against 1 with an adapter of its own",
                saved("full", "no-guidance-own"),
                "%",
            ),
            Expectation(
                "bits saved without maps, the shared adapter against one of its own",
                saved("no-guidance", "no-guidance-own"),
                "%",
                low=-float("inf"),
            ),
            *(
                Expectation(
                    f"bits saved, {name} against {many} levels", saved(name, "full"), "%", -float("inf"), TOLERANCE
                )
                for name in levels or ["levels-5"]
            ),
        ],
    )


def _everywhere(what: str, number: Callable[..., Number]) -> Iterator[Expectation]:
    """The same benchmark by benchmark: what happens "everywhere" or "across benchmarks" is more than a mean."""
    for name in BENCHMARKS:
        yield Expectation(f"{what}, {benchmark_label(name)}", number(on=name))


def _changing(key: str, settings: Settings) -> dict[str, Any]:
    """Variant -> what it sets this key of `guidance` to, of those that change nothing else."""
    entries = settings.variants.items()
    alone = {name: entry.model_dump(exclude_defaults=True, exclude={"adapter_of"}) for name, entry in entries}
    return {
        name: changes["guidance"][key]
        for name, changes in alone.items()
        if changes.keys() == {"guidance"} and changes["guidance"].keys() == {key}
    }


def _scopes(settings: Settings) -> Iterator[Expectation]:
    """Hierarchical guidance against each of its parts, for every variant that guides by one of them alone."""
    for name, entry in settings.variants.items():
        scope, base = entry.guidance.get("scope"), entry.adapter_of
        if base and scope in ("global", "local") and settings.changed(base)["guidance"]["scope"] == "hierarchical":
            what = f"hierarchical over {scope} guidance, {entry.mllm or settings.mllms[0]}"
            low = 0.0 if scope == "global" else -float("inf")
            yield Expectation(what, over(base, name), low=low)
            yield Expectation(f"bits saved, {what}", saved(base, name), "%", low=-float("inf"))


def _layers(layers: Sequence[int]) -> str:
    return f"layers {', '.join(map(str, layers))}" if len(layers) > 1 else f"layer {layers[0]}"


def _without_warmup(settings: Settings) -> str:
    named = [name for name in ("no-warmup", "high-only") if name in settings.variants]
    if any(settings.changed(name)["adapter"]["warmup_epochs"] for name in named):
        return "no-warmup over high-only"
    return "both losses over the high-level one alone, neither warmed up"


def _about_images_only(verdict: str, comparisons: Sequence[Comparison]) -> bool:
    """Whether another training might change the verdict, as far as intervals say; one that fails is enough to fail."""
    if verdict == FAILS:
        return all(comparison.images_only for comparison in comparisons if comparison.verdict == FAILS)
    return any(comparison.images_only for comparison in comparisons if comparison.verdict != SHOWN)


def find_verdicts(results: Results, settings: Settings) -> list[Verdict]:
    """Every claim's verdict, in the order of the paper."""
    found = []
    for claim, paper, expectations in claims(settings):
        comparisons = [expectation.check(results) for expectation in expectations]
        said = {comparison.verdict for comparison in comparisons}
        verdict = next(word for word in WORST_FIRST if word in said)
        found.append(Verdict(claim, paper, verdict, comparisons, _about_images_only(verdict, comparisons)))
    return found
