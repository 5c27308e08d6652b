"""`variants` of params.yaml: an entry says only what differs from the main run, and must not contradict itself.

What an entry comes to (its settings, what it shares with others) is in components/variants.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from components.config_section import Name, Section

VIEWS = ("qualities", "draws", "held_out")
"""Of `adapter`: which views of the training images are learned from."""


@dataclass(frozen=True)
class Method:
    """What is known of a method without running it.

    Attributes:
        trains: components/training/methods has a module for it, called after it with underscores.
        adapter: it has CoTAM's adapter, which `receive` and the section `adapter` speak of.
        adapter_keys: what its training reads of the section `adapter`; None: all of it. Whatever learns from the views
            of training images (`AdapterStage.store`) reads `VIEWS`.
        own_codec: it changes the codec too, so its streams are its own.
        deps: what its training reads beside shards and models.
        baselines: the parts of the section `baselines` that its training reads.
        idle: of these parts, the keys that are others' alone.
    """

    trains: bool = True
    adapter: bool = False
    adapter_keys: tuple[str, ...] | None = VIEWS
    own_codec: bool = False
    deps: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    @property
    def continues_main_run(self) -> bool:
        """Whether its training starts from the main run's adapter, or one trained like it with the same seed."""
        return "{start}" in self.deps


METHODS: dict[str, Method] = {
    "cotam": Method(adapter=True, adapter_keys=None),
    "cotam-ft": Method(
        adapter=True,
        adapter_keys=("lambda_low", "lambda_high", *VIEWS),
        own_codec=True,
        deps=("{start}",),
        baselines=("tuning",),
    ),
    "bridge-d1": Method(adapter_keys=("batch", *VIEWS), deps=("data/scenes",), baselines=("bridge",)),
    "bridge-d3": Method(
        adapter_keys=("batch", *VIEWS), own_codec=True, deps=("data/scenes",), baselines=("bridge", "tuning")
    ),
    "icmh-adapt": Method(
        adapter_keys=("lambda_low", "lambda_high", *VIEWS),
        own_codec=True,
        baselines=("modulation", "tuning"),
        idle=("tuning.epochs", "tuning.learning_rate", "tuning.part_scale"),
    ),
    "mft": Method(
        adapter_keys=("batch", *VIEWS),
        deps=("data/scenes",),
        baselines=("mllm_tuning",),
        idle=("mllm_tuning.full_learning_rate",),
    ),
    "mft-full": Method(
        adapter_keys=("batch", *VIEWS),
        deps=("data/scenes",),
        baselines=("mllm_tuning",),
        idle=("mllm_tuning.rank", "mllm_tuning.learning_rate"),
    ),
    "cft": Method(
        own_codec=True,
        deps=("data/scenes",),
        baselines=("cft", "mllm_tuning", "tuning"),
        idle=(
            *("mllm_tuning.rank", "mllm_tuning.epochs", "mllm_tuning.learning_rate", "mllm_tuning.full_learning_rate"),
            *("tuning.epochs", "tuning.part_scale", "tuning.rate"),
        ),
    ),
    "avif": Method(trains=False),
}
"""A baseline begins with a line here (docs/adding-a-method.md)."""

MERGED = ("guidance", "adapter", "evaluation", "baselines")
"""Sections of the settings that an entry may change in part."""
OWN_EVALUATION = ("qualities", "avif_qualities")
"""All else of `evaluation` is the same for everyone, or nothing could be compared."""


class Variant(Section):
    """One entry. `guidance`, `adapter`, `evaluation` and `baselines` hold some keys of the sections of that name."""

    method: Literal[tuple(METHODS)] = "cotam"
    codec: Name | None = None
    """An entry of `codec`; by default the first of `codecs`."""
    mllm: Name | None = None
    """An entry of `mllm`; by default the first of `mllms`."""
    receive: Literal["full", "adapter", "picture"] = "full"
    """What the tower sees of a file: the picture with the adapter's word, that word alone, or the picture alone."""
    adapter_of: Name | None = None
    """The variant whose adapter it uses, where what differs does not reach the adapter's training."""
    guidance: dict[str, Any] = Field(default_factory=dict)
    adapter: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)
    baselines: dict[str, Any] = Field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether it needs anything that is trained."""
        return METHODS[self.method].trains and self.receive != "picture"


def contradiction(name: str, variants: Mapping[str, Variant], settings: Mapping[str, Any]) -> str | None:
    """What is wrong with an entry, as `KEY ...`, or None.

    Args:
        name: of the entry.
        variants: all of them.
        settings: with the entry's changes in place.
    """
    one = variants[name]
    method, guidance, adapter = METHODS[one.method], settings["guidance"], settings["adapter"]
    for key in ("codec", "mllm"):
        named = getattr(one, key)
        if named is not None and named not in settings[key]:
            return f"{key} names {named}, but there is no {key}.{named}"
        if named is not None and method.continues_main_run and named not in settings[f"{key}s"]:
            return (
                f"{key} names {named}, but {one.method} starts from the main run's adapter, and {key}s of the main "
                f"run does not list {named}"
            )
    if not method.trains:
        for key in ("codec", "guidance", "adapter", "baselines"):
            if getattr(one, key):
                return f"{key} has no meaning for {one.method}, which is no learned codec"
    if one.receive != "full" and not method.adapter:
        return f"receive says what becomes of CoTAM's adapter, which {one.method} does not have"
    if one.receive != "full" and method.own_codec:
        return f"receive must be full for {one.method}, whose codec and adapter learn together"
    for key in one.adapter:
        if method.adapter_keys is not None and key not in method.adapter_keys:
            begins = ", whose adapter is the main run's to begin with" if method.adapter else ""
            return f"adapter.{key} has no meaning for {one.method}{begins}; it reads {', '.join(method.adapter_keys)}"
    for part, changes in one.baselines.items():
        if part not in method.baselines:
            reads = f"of baselines it reads {' and '.join(method.baselines)}" if method.baselines else "it reads none"
            return f"baselines.{part} has no meaning for {one.method}; {reads}"
        for key in changes:
            if f"{part}.{key}" in method.idle:
                return f"baselines.{part}.{key} has no meaning for {one.method}, which does not read it"
    if "tower" in one.guidance:
        return "guidance.tower must be the same for all variants; change it in guidance"
    if one.receive == "picture":
        for key in ("adapter", "adapter_of"):
            if getattr(one, key):
                return f"{key} has no meaning where receive is picture, as no adapter is used"
    if guidance["levels"] == 1:
        for key in one.guidance:
            if key != "levels":
                return f"guidance.{key} has no meaning where guidance.levels is 1, as there is no map"
    if adapter["warmup_epochs"] == 0:
        for key in ("warmup_layer", "warmup_mixed"):
            if key in one.adapter:
                return f"adapter.{key} has no meaning where adapter.warmup_epochs is 0"
    low_alone = adapter["warmup_epochs"] and adapter["warmup_layer"] == 0 and adapter["lambda_low"] == 0
    if low_alone and method.adapter_keys is None and {"lambda_low", "warmup_epochs", "warmup_layer"} & set(one.adapter):
        return (
            "adapter.lambda_low is 0, but a warm-up at adapter.warmup_layer 0 learns from the low-level loss; set "
            "adapter.warmup_epochs to 0"
        )
    for key in one.evaluation:
        if key not in OWN_EVALUATION and key in settings["evaluation"]:
            return f"evaluation.{key} must be the same for all variants; change it in evaluation"
        used = "avif_qualities" if one.method == "avif" else "qualities"
        if key != used:
            return f"evaluation.{key} has no meaning for {one.method}, whose qualities are in evaluation.{used}"
        if len(settings["evaluation"][key]) < 2:
            return f"evaluation.{key} has a single value, and one point has no BD-rate; name two or more"
    if one.adapter_of is not None:
        return _wrong_sharing(name, variants, settings)
    return None


def _wrong_sharing(name: str, variants: Mapping[str, Variant], settings: Mapping[str, Any]) -> str | None:
    one, other = variants[name], variants.get(variants[name].adapter_of)
    if other is None:
        return f"adapter_of names {one.adapter_of}, which is no variant"
    if one.adapter_of == name:
        return "adapter_of names the variant itself"
    if one.adapter:
        return "adapter_of contradicts adapter: a shared adapter is trained as the other variant says"
    if other.adapter_of is not None:
        return f"adapter_of names {one.adapter_of}, which has no adapter of its own; name {other.adapter_of}"
    for side, of in ((one.method, name), (other.method, one.adapter_of)):
        if side != "cotam":
            return f"adapter_of is for variants of cotam, whose codec is frozen; {of} is of {side}"
    default = {"codec": settings["codecs"][0], "mllm": settings["mllms"][0], "receive": "full"}
    for key, what in (("codec", "another codec"), ("mllm", "the tower of another MLLM"), ("receive", "another use")):
        if (getattr(one, key) or default[key]) != (getattr(other, key) or default[key]):
            return f"adapter_of names {one.adapter_of}, whose adapter is for {what} ({key})"
    return None
