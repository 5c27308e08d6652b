"""params.yaml as typed, checked, frozen settings.

A mistake in the file is one sentence that names the key, before anything runs: a misspelt knob must never be a knob
that silently did nothing.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from components.config_baselines import Baselines
from components.config_section import Name, Percent, Positive, Quality, Section, Seed, Weight
from components.config_variants import MERGED, Variant, contradiction
from components.config_variants import METHODS as VARIANT_METHODS
from components.errors import CotamError
from components.paths import ROOT
from components.placing import Dtype

METHODS = ("clean", "jpeg", "webp", *VARIANT_METHODS)
"""What results call the methods that are no codec of `codecs` (components/evaluation/streams.py)."""
Task = Literal[
    "mme",
    "textvqa_val",
    "pope",
    "seedbench",
    "vqav2_val",
    "mmmu_val",
    "mmbench_en_dev_static",
    "videomme",
]
"""The tasks of lmms-eval that can be evaluated, by its names (components/evaluation/official.py)."""


class Scenes(Section):
    """The embedded world (components/scenes)."""

    images: Annotated[int, Field(ge=1, le=1_000_000)]
    size: Literal[128, 256, 384, 512]


class Data(Section):
    """What the adapter learns from (components/data)."""

    source: Annotated[str, Field(min_length=1)]
    """A folder of images, or what `cotam shard` wrote; relative to the checkout."""
    shard_images: Positive
    minimum_side: Positive
    maximum_pixels: Positive

    @model_validator(mode="after")
    def _source_is_local(self) -> "Data":
        if "://" in self.source or self.source.startswith("~"):
            raise ValueError(
                f"source must be a folder that DVC can hash; run `cotam shard {self.source} -o data/my-images` (with "
                "--link if shards lie there) and set data.source to data/my-images"
            )
        return self


class Model(Section):
    """A folder, `models:/NAME@ALIAS`, or a Hugging Face name (components/weights.py)."""

    weights: Annotated[str, Field(min_length=1)]


class Mllm(Model):
    """The same, and in what numbers its weights are held.

    Without `dtype` they are as they are stored where there is a GPU, and else float32 (components/mllm/loading.py).
    """

    dtype: Dtype | None = None


class Guidance(Section):
    """Which regions get more bits (components/codec/guidance.py; paper, section 3.2)."""

    tower: Annotated[str, Field(min_length=1)]
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    grid: Annotated[int, Field(ge=1, le=64)]
    k: Annotated[float, Field(ge=0, le=5)]
    scope: Literal["global", "local", "hierarchical"]
    """What guides an image of several tiles of the tower's size: its whole, its tiles, or both (section 3.4)."""
    levels: Literal[1, 3, 5, 7]
    """How many qualities a region may have; 1: no guidance, streams carry no map."""


class Adapter(Section):
    """The latent feature adapter and how it is trained (components/adapter; paper, section 3.3)."""

    lambda_low: Weight
    lambda_high: Weight
    warmup_epochs: Annotated[int, Field(ge=0, le=1000)]
    warmup_layer: Annotated[int, Field(ge=0, le=1000)]
    warmup_mixed: Annotated[float, Field(ge=0, le=1)]
    joint_epochs: Annotated[int, Field(ge=0, le=1000)]
    batch: Positive
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    width: Positive
    heads: Positive
    blocks: Positive
    start: Literal["silent", "random"]
    """Whether its last projection is zero before training, or drawn like the others."""
    qualities: Annotated[tuple[Quality, ...], Field(min_length=1)]
    draws: Positive
    held_out: Positive

    @model_validator(mode="after")
    def _heads_share_width(self) -> "Adapter":
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads ({self.heads}), not {self.width}")
        return self

    @model_validator(mode="after")
    def _something_is_learned(self) -> "Adapter":
        if not self.lambda_low and not self.lambda_high:
            raise ValueError("lambda_low and lambda_high must not both be 0: there would be nothing to learn")
        if not self.warmup_epochs and not self.joint_epochs:
            raise ValueError("joint_epochs and warmup_epochs must not both be 0: nothing would be learned")
        return self


class Evaluation(Section):
    """What is measured, at which rates (components/evaluation)."""

    images: Positive
    detail: Annotated[int, Field(ge=1, le=4)]
    """The benchmarks' scenes are so many times as large as `scenes.size`, and so much more stands in them."""
    clips: Annotated[int, Field(ge=0, le=10_000)]
    """Videos, for the MLLMs that take them; each is asked about twice."""
    tasks: tuple[Task, ...]
    """The benchmarks themselves, each whole, beside the drawn ones (docs/lmms-eval.md)."""
    qualities: Annotated[tuple[Quality, ...], Field(min_length=1)]
    jpeg_qualities: Annotated[tuple[Percent, ...], Field(min_length=1)]
    webp_qualities: Annotated[tuple[Percent, ...], Field(min_length=1)]
    avif_qualities: Annotated[tuple[Percent, ...], Field(min_length=1)]
    """Of the variants whose method is avif."""
    bootstrap: Positive

    @model_validator(mode="after")
    def _in_order(self) -> "Evaluation":
        for key in ("qualities", "jpeg_qualities", "webp_qualities", "avif_qualities"):
            values = getattr(self, key)
            if list(values) != sorted(set(values)):
                raise ValueError(f"{key} must rise without repeating a value")
        return self

    @model_validator(mode="after")
    def _tasks_differ(self) -> "Evaluation":
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError("tasks names something twice")
        return self


class Settings(Section):
    """Every knob, as in params.yaml."""

    seed: Seed
    threads: Annotated[int, Field(ge=1, le=256)]
    scenes: Scenes
    data: Data
    codecs: Annotated[tuple[Name, ...], Field(min_length=1)]
    codec: dict[Name, Model]
    mllms: Annotated[tuple[Name, ...], Field(min_length=1)]
    mllm: dict[Name, Mllm]
    guidance: Guidance
    adapter: Adapter
    baselines: Baselines
    evaluation: Evaluation
    more_seeds: tuple[Seed, ...]
    """Seeds of further trainings of every variant, beside `seed`."""
    variants: dict[Name, Variant]

    @model_validator(mode="after")
    def _codecs_are_no_other_methods(self) -> "Settings":
        for name in self.codecs:
            if name in METHODS:
                raise ValueError(f"codecs names {name}, as the results call another method; give it another name")
        return self

    @model_validator(mode="after")
    def _names_are_defined(self) -> "Settings":
        for listing, entries in (("codecs", self.codec), ("mllms", self.mllm)):
            names = getattr(self, listing)
            for name in names:
                if name not in entries:
                    raise ValueError(f"{listing} names {name}, but there is no {listing[:-1]}.{name}")
            if len(set(names)) != len(names):
                raise ValueError(f"{listing} names something twice")
        if len({self.seed, *self.more_seeds}) <= len(self.more_seeds):
            raise ValueError("more_seeds repeats a seed, or holds seed itself")
        return self

    @model_validator(mode="after")
    def _benchmarks_can_be_drawn(self) -> "Settings":
        if self.scenes.size * self.evaluation.detail > 512:
            raise ValueError("evaluation.detail times scenes.size must be at most 512 pixels")
        return self

    @model_validator(mode="after")
    def _videos_can_be_coded(self) -> "Settings":
        if self.evaluation.clips and self.guidance.levels > 3:
            raise ValueError("evaluation.clips must be 0 where guidance.levels is above 3: a video has no room for it")
        return self

    @model_validator(mode="after")
    def _variants_are_sound(self) -> "Settings":
        for name in self.variants:
            changed = self.changed(name)
            try:
                Settings.model_validate_json(json.dumps(changed))
            except ValidationError as error:
                raise ValueError(f"variants.{name}.{_sentence(error).removesuffix('.')}") from None
            if wrong := contradiction(name, self.variants, changed):
                raise ValueError(f"variants.{name}.{wrong}")
        return self

    def changed(self, variant: str) -> dict[str, Any]:
        """All settings as a variant has them, as JSON values; unchecked, and with no variants in them."""
        entry, merged = self.variants[variant], self.model_dump(mode="json", exclude={"variants"})
        for section in MERGED:
            if changes := getattr(entry, section):
                merged[section] = _merged(merged.get(section, {}), changes)
        merged["evaluation"] |= {"clips": 0, "tasks": []}  # variants are asked about drawn images alone
        return merged | {"variants": {}}


def load(path: str | Path = ROOT / "params.yaml", overrides: Mapping[str, str] | None = None) -> Settings:
    """Read and check a settings file.

    Args:
        path: params.yaml or a profile with the same keys.
        overrides: dotted key to a YAML value, such as {"adapter.lambda_high": "0.5"}; the key must exist.

    Raises:
        CotamError: one sentence that names the file and the dotted key.
    """
    raw = read_yaml(path)
    for key, value in (overrides or {}).items():
        override(raw, key, value)
    try:
        text = json.dumps(raw)
    except TypeError as error:
        raise CotamError(f"{Path(path).name}: a value is neither a number, a text nor a list ({error}).") from None
    try:
        # From JSON, because there a list is a strict tuple; from Python it is not.
        return Settings.model_validate_json(text)
    except ValidationError as error:
        raise CotamError(f"{Path(path).name}: {_sentence(error)}") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping as DVC reads it (YAML 1.2: `1e-3` is a number; a key given twice is an error).

    Raises:
        CotamError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise CotamError(f"{path} does not exist; run cotam in a checkout of the project.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CotamError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(value, dict):
        raise CotamError(f"{path} must be a mapping of settings, such as `seed: 7`.")
    return value


def dotted_keys(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with its value, sections included: ("adapter", {...}), ("adapter.batch", 32), ..."""
    for name, child in value.items() if isinstance(value, dict) else ():
        yield f"{prefix}{name}", child
        yield from dotted_keys(child, f"{prefix}{name}.")


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                where = key_node.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} is there twice", where)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def override(raw: dict[str, Any], key: str, value: str) -> None:
    """Replace the value of one dotted key, in place.

    Raises:
        CotamError: there is no such key, or the value is not YAML.
    """
    known = dict(dotted_keys(raw))
    if key not in known:
        raise CotamError(f"params.yaml: {_unknown(key, known)}")
    section = raw
    *parents, last = key.split(".")
    for name in parents:
        section = section[name]
    try:
        section[last] = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise CotamError(f"params.yaml: the value {value!r} for {key} is not valid YAML.") from None


def _merged(section: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        key: _merged(section[key], value)
        for key, value in changes.items()
        if isinstance(value, Mapping) and isinstance(section.get(key), Mapping)
    }
    return {**section, **changes, **nested}


def _unknown(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"{key} is not a setting" + (f"; did you mean {close[0]}?" if close else ".")


_PLAIN = (
    ("Input should be a valid integer", "must be a whole number"),
    ("Input should be a valid number", "must be a number"),
    ("Input should be a valid string", "must be a text"),
    ("Input should be a valid array", "must be a list"),
    ("Input should be an object", "must be a section of settings"),
    ("Input should be", "must be"),
)


def _sentence(error: ValidationError) -> str:
    """The first thing that is wrong, in one sentence. A misspelt key is also a missing one; the misspelling is said."""
    first = min(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    match first["type"]:
        case "extra_forbidden":
            entry = re.match(r"variants\.[^.]+\.", key)
            return _unknown(key, [f"{entry[0]}{name}" for name in Variant.model_fields] if entry else _schema_keys())
        case "missing":
            return f"{key} is missing."
        case "too_short":
            return f"{key} must not be empty."
        case "string_pattern_mismatch":
            return f"{key} must be a name of small letters, digits, - and _, not {json.dumps(first['input'])}."
        case "value_error":
            said = f"{key + '.' if key else ''}{first['ctx']['error']}"
            return said if said.endswith("?") else f"{said}."
    message = first["msg"]
    for before, after in _PLAIN:
        message = message.replace(before, after)
    return f"{key} {message}, not {json.dumps(first['input'])}."


def _schema_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _schema_keys(field.annotation, f"{prefix}{name}.")
    return keys
