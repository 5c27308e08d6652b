"""The settings of the methods that are compared: the few knobs of each one's own (components/training/methods)."""

from typing import Annotated

from pydantic import Field, model_validator

from components.config_section import Positive, Section, Weight

Epochs = Annotated[int, Field(ge=0, le=1000)]
Rate = Annotated[float, Field(gt=0, le=1)]


class Bridge(Section):
    """The transform-neck of bridge-d1 and bridge-d3 (components/baselines/bridge.py)."""

    layer: Annotated[int, Field(ge=0, le=1000)]
    heads: Positive
    start_epochs: Epochs
    epochs: tuple[Epochs, Epochs, Epochs]
    distillation: Weight
    learning_rate: Rate

    @model_validator(mode="after")
    def _ends_with_features(self) -> "Bridge":
        if not self.epochs[2]:
            raise ValueError("epochs must end with at least one of distillation alone")
        return self


class Modulation(Section):
    """The adapters of icmh-adapt (components/codec/modulation.py)."""

    channels: Positive
    epochs: Positive
    learning_rate: Rate


class Tuning(Section):
    """A codec that learns: cotam-ft and bridge-d3 (components/training/codec_tuning.py)."""

    epochs: Positive
    batch: Positive
    learning_rate: Rate
    part_scale: Annotated[float, Field(gt=0, le=1000)]
    rate: Weight


class CodecThroughMllm(Section):
    """cft (components/training/methods/cft.py)."""

    epochs: Positive
    rate: Weight


class MllmTuning(Section):
    """mft and mft-full (components/training/mllm_tuning.py)."""

    rank: Positive
    epochs: Positive
    questions: Positive
    learning_rate: Rate
    full_learning_rate: Rate


class Baselines(Section):
    """One section per method, or per what several share."""

    bridge: Bridge
    modulation: Modulation
    tuning: Tuning
    cft: CodecThroughMllm
    mllm_tuning: MllmTuning
