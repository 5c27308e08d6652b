"""What each variant comes to: one run per training seed, and what it takes over from other runs instead of making it.

A run trains only if nobody else trains the same thing, and encodes only if nobody else encodes the same thing; the main
pipeline counts as somebody else. `pipelines/generate.py` makes the ablation pipeline's graph of this, the steps find
their inputs by it, and the flow chooses among it.
"""

import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from components import config
from components.config_variants import METHODS
from components.errors import CotamError
from components.files import read_json
from components.paths import instance_name

TRAINED, CODED, SCORED = "results/variant-training", "results/variant-rates", "results/variants"


@dataclass(frozen=True)
class Run:
    """A variant with one training seed.

    Attributes:
        variant, seed, method, receive: as the settings have them.
        codec, mllm: names of the models that it is about.
        guided: whether its files have guidance maps.
        trains: whether it trains something; its results are then in `results/variant-training/NAME`.
        encodes: whether it encodes the benchmarks; into `results/variant-rates/NAME`.
        model: the folder of what it uses beside codec and MLLM (`adapter/`, `codec/`, ...); "" where there is nothing.
        streams: the folder of its streams.zip and rates.json.
        coded_as: the method by which these name its files.
        start: the folder of the adapter that its training goes on from; "" where it starts afresh.
    """

    variant: str
    seed: int
    method: str
    receive: str
    codec: str
    mllm: str
    guided: bool
    trains: bool
    encodes: bool
    model: str
    streams: str
    coded_as: str
    start: str = ""

    @property
    def name(self) -> str:
        """`k-045-7`."""
        return f"{self.variant}-{self.seed}"

    @property
    def own_codec(self) -> bool:
        """Whether its files are made by a codec of its own, in `model`/codec."""
        return METHODS[self.method].own_codec

    @property
    def is_codec_alone(self) -> bool:
        """Whether it is what the main run calls by the codec's name: plain files, seen as they are."""
        return self.method == "cotam" and self.receive == "picture" and not self.guided

    @property
    def trained_by(self) -> str:
        """The name of the run that trains what it uses; "" where the main pipeline does, or nobody."""
        return self.model.split("/")[2] if self.model.startswith(TRAINED) else ""

    @property
    def coded_by(self) -> str:
        """The same for its files."""
        return self.streams.split("/")[2] if self.streams.startswith(CODED) else ""

    def as_instance(self) -> dict[str, str]:
        """What steps and DVC fill into templates: every field as text, and `name`."""
        return {key: str(value) for key, value in asdict(self).items()} | {"name": self.name}


def runs(settings: config.Settings) -> list[Run]:
    """All runs of all variants, in the order of the settings; those of one variant by seed.

    A variant without training (`receive: picture`, a yardstick) has one run, under the main seed.
    """
    found: list[Run] = []
    trained: dict[str, str] = {}
    coded: dict[str, tuple[str, str]] = {}
    for codec in settings.codecs:
        for mllm in settings.mllms:
            main = _training(settings.model_dump(mode="json"), "cotam", codec, mllm, "full", settings.seed)
            trained[main] = f"results/joint/{instance_name(codec, mllm)}"
        for coded_as in ("cotam", codec):
            coded[_coding(settings.model_dump(mode="json"), coded_as, codec)] = f"results/rate/{codec}", coded_as
    seeds = (settings.seed, *settings.more_seeds)
    # Those that others share or start from come first: it goes one step deep.
    for later in (False, True):
        for variant, entry in settings.variants.items():
            if later == (entry.adapter_of is not None or METHODS[entry.method].continues_main_run):
                of_variant = seeds if entry.trains else seeds[:1]
                found += [_run(settings, variant, seed, trained, coded, found) for seed in of_variant]
    order = list(settings.variants)
    return sorted(found, key=lambda run: (order.index(run.variant), seeds.index(run.seed)))


def find_run(settings: config.Settings, variant: str, seed: int) -> Run:
    """The run of that variant and seed.

    Raises:
        CotamError: there is none.
    """
    for run in runs(settings):
        if (run.variant, run.seed) == (variant, seed):
            return run
    if variant not in settings.variants:
        raise CotamError(f"There is no variant {variant}; params.yaml has {', '.join(settings.variants) or 'none'}.")
    raise CotamError(f"The variant {variant} is not run with the seed {seed} (`seed` and `more_seeds` in params.yaml).")


def choose(settings: config.Settings, patterns: list[str], seeds: list[int]) -> list[Run]:
    """The runs whose variant's name fits one of the patterns (`no-*`), with one of the seeds.

    Raises:
        CotamError: a pattern fits nothing, or a seed is not in the settings.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in settings.variants):
            raise CotamError(f"No variant is called {pattern}; params.yaml has {', '.join(settings.variants)}.")
    for seed in seeds:
        if seed not in (settings.seed, *settings.more_seeds):
            raise CotamError(f"The seed {seed} is not in params.yaml; add it to more_seeds.")
    fits = [run for run in runs(settings) if any(fnmatchcase(run.variant, pattern) for pattern in patterns)]
    return [run for run in fits if run.seed in seeds or not settings.variants[run.variant].trains]


def check_layers(settings: config.Settings, root: Path) -> None:
    """Refuse variants that guide by layers which their tower does not have, as far as towers lie in the checkout.

    Raises:
        CotamError: naming the first such variant.
    """
    for name in settings.variants:
        guidance = settings.changed(name)["guidance"]
        described = root / guidance["tower"] / "config.json"
        if not described.is_file():
            continue
        layers = read_json(described).get("vision_config", {}).get("num_hidden_layers")
        deepest = max(guidance["layers"])
        if layers is not None and deepest >= layers:
            raise CotamError(
                f"params.yaml: variants.{name}.guidance.layers names layer {deepest}, but the tower "
                f"{guidance['tower']} has layers 0 to {layers - 1}."
            )


def settings_of(settings: config.Settings, run: Run) -> dict[str, Any]:
    """All settings as a run sees them, as JSON values: the variant's changes in place, `seed` its own, its entry under
    `variants`."""
    entry = settings.variants[run.variant].model_dump(mode="json", exclude_defaults=True)
    changed = settings.changed(run.variant)
    return changed | {"seed": run.seed, "variants": {run.variant: entry}}


def _run(
    settings: config.Settings,
    variant: str,
    seed: int,
    trained: dict[str, str],
    coded: dict[str, tuple[str, str]],
    found: list[Run],
) -> Run:
    entry, changed = settings.variants[variant], settings.changed(variant)
    codec, mllm = entry.codec or settings.codecs[0], entry.mllm or settings.mllms[0]
    name, trains, model = f"{variant}-{seed}", False, ""
    if entry.adapter_of:
        model = next(run.model for run in found if (run.variant, run.seed) == (entry.adapter_of, seed))
    elif entry.trains:
        key = _training(changed, entry.method, codec, mllm, entry.receive, seed)
        trains = key not in trained
        model = trained.setdefault(key, f"{TRAINED}/{name}/model")
    own = METHODS[entry.method].own_codec
    guided = METHODS[entry.method].trains and changed["guidance"]["levels"] > 1
    what = entry.method if entry.method == "avif" else "cotam" if guided else codec
    files = _coding(changed, what, f"{codec} of {name}" if own else codec)
    encodes = files not in coded
    coded_as = what if entry.method == "avif" else "cotam"
    streams, coded_as = coded.setdefault(files, (f"{CODED}/{name}", coded_as))
    return Run(
        variant=variant,
        seed=seed,
        method=entry.method,
        receive=entry.receive,
        codec=codec,
        mllm=mllm,
        guided=guided,
        trains=trains,
        encodes=encodes,
        model=model,
        streams=streams,
        coded_as=coded_as,
        start=_start(settings, codec, mllm, seed, trained) if METHODS[entry.method].continues_main_run else "",
    )


def _start(settings: config.Settings, codec: str, mllm: str, seed: int, trained: dict[str, str]) -> str:
    """The main run's adapter as somebody trains it with that seed; where nobody does, the main run's own."""
    values = settings.model_dump(mode="json")
    main, same = (_training(values, "cotam", codec, mllm, "full", one) for one in (settings.seed, seed))
    return f"{trained.get(same, trained[main])}/adapter"


def _training(changed: dict[str, Any], method: str, codec: str, mllm: str, receive: str, seed: int) -> str:
    """All that a training depends on which two variants may differ in."""
    sections = {name: changed.get(name) for name in ("adapter", "guidance", "baselines")}
    return json.dumps([method, codec, mllm, receive, seed, sections], sort_keys=True)


def _coding(changed: dict[str, Any], what: str, codec: str) -> str:
    """The same for coded benchmarks; `what` is "cotam" for guided files, the codec's name for plain ones, or "avif"."""
    guidance = changed["guidance"] if what == "cotam" else None
    rates = changed["evaluation"]["avif_qualities" if what == "avif" else "qualities"]
    return json.dumps(["avif" if what == "avif" else codec, guidance, rates])
