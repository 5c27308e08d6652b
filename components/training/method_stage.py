"""What the compared methods' trainings share beyond an adapter's: pictures, scenes, a place for results."""

import logging
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from components.adapter.losses import high_loss, low_loss
from components.codec.folder import model_id, save_codec
from components.data.reader import ShardReader
from components.files import write_json
from components.scenes.companions import scenes_of
from components.scenes.graph import Scene
from components.step_inputs import Params, StepInputs
from components.training.adapter_stage import AdapterStage
from components.training.codec_tuning import Loss, TunedCodec, set_prices
from components.training.loop import Examples, Schedule, train
from components.training.optimizer import fine_tuning, make_optimizers
from components.training.pixel_views import PixelViews
from components.training.validation import HeldOut, Measure, validate_by_quality

logger = logging.getLogger(__name__)

LossOfBatch = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]


class MethodStage(AdapterStage):
    """The frozen parts of one instance, the features that they give, and the pictures and scenes behind them."""

    def __init__(self, inputs: StepInputs):
        super().__init__(inputs)
        self.device = next(self.tower.parameters()).device

    @property
    def settings(self) -> Params:
        """The parts of `baselines` that the method reads."""
        return self.inputs.params.baselines

    @cached_property
    def views(self) -> PixelViews:
        """The store's views with their pictures."""
        reader = ShardReader(self.inputs.paths.shards, self.inputs.params.seed)
        return PixelViews(self.store, reader, self.tower.geometry.output_size[0])

    @cached_property
    def scenes(self) -> list[Scene] | None:
        """The scene of every picture, held-out ones included; None where pictures have none."""
        return scenes_of(self.inputs.paths.shards, self.inputs.paths.root)

    @property
    def sample(self) -> Callable[[Tensor], Tensor]:
        """The geometry of the training pictures, which have the tower's own size, for adapters and necks."""
        geometry = self.tower.geometry
        return partial(geometry.sample_latent, image_size=geometry.output_size, grid=self.tower.grid)

    def patches(self, pictures_B3HW: Tensor) -> Tensor:
        """E of decoded pictures in [0, 1], differentiable: (B, N, D)."""
        return self.tower.patch_embed(self.tower.geometry.transform(pictures_B3HW))

    def multi_level(self, batch: dict[str, Tensor], decoded_BND: Tensor, added_BND: Tensor) -> dict[str, Tensor]:
        """L_low and L_high (paper, equation 1) of decoded patches and what a method adds to them."""
        seen_BND = self.tower.forward_from_patches(decoded_BND + added_BND).consumed_BND
        low = low_loss(batch["patches"], decoded_BND, added_BND)
        return {"low": low, "high": high_loss(batch["features"], seen_BND)}

    def unadapted(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same of the main codec's pictures alone."""
        found = self.multi_level(batch, batch["decoded"], torch.zeros_like(batch["decoded"]))
        return {f"{name}_unadapted": value for name, value in found.items()}

    def fit_phase(
        self,
        name: str,
        model: nn.Module,
        loss: LossOfBatch,
        examples: Examples,
        schedule: Schedule,
        optimizers: Callable[[nn.Module, float], list[Optimizer]] = make_optimizers,
    ) -> dict[str, float]:
        """One call of the training loop, with a checkpoint of its own."""
        checkpoint = self.inputs.work / f"{name}.safetensors"
        return train(
            model, loss, examples, schedule, checkpoint=checkpoint, log=self.inputs.log, optimizers=optimizers
        )

    def tune(
        self, model: TunedCodec, loss: Loss, schedule: Schedule, factor: float, examples: Examples | None = None
    ) -> dict[str, float]:
        """Train a codec (and its part) on a loss and the priced rate; return the last epoch's means.

        Args:
            factor: of the prices (`codec_tuning`); 0: the rate is free.
            examples: training examples with pixels; by default the pictures.
        """
        examples = examples or self.views
        set_prices(model, examples, loss, factor, self.device)

        def total(module: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            out = module(batch["pixels"], batch["quality_map"])
            task, parts = loss(out, batch)
            return task + out["price"], parts | {"bpp": out["bpp"]}

        model.train()
        torch.manual_seed(self.inputs.params.seed)  # of the noise that stands for rounding
        optimizers = fine_tuning({"codec": 1.0, "part": self.settings.tuning.part_scale})
        return self.fit_phase("tuning", model, total, examples, schedule, optimizers)

    def rate_unadapted(self) -> Callable[[dict[str, Tensor]], Tensor]:
        """The main codec's rate of a batch."""
        main = TunedCodec(self.codec.model, None, picture=False, sample=self.sample).to(self.device).eval()
        return lambda batch: main(batch["pixels"], batch["quality_map"])["bpp"]

    def validate(self, measure: Measure, views: HeldOut | None = None) -> dict[str, dict[str, float]]:
        """Held-out means per quality; `views`: what they are measured on, by default the store's."""
        qualities = self.store.plan.validation_qualities
        return validate_by_quality(views or self.store, qualities, measure, self.device)

    def validate_codec(self, model: TunedCodec, loss: Loss) -> dict[str, dict[str, float]]:
        """Held-out means of a codec that has learned, rates included, beside the main one's."""
        model.to(self.device).eval()
        rate = self.rate_unadapted()

        def measure(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            out = model(batch["pixels"], batch["quality_map"])
            found = loss(out, batch)[1] | {"bpp": out["bpp"]}
            return found | self.unadapted(batch) | {"bpp_unadapted": rate(batch)}

        return self.validate(measure, self.views)

    @property
    def model_folder(self) -> Path:
        """Where the method's parts are written."""
        return self.inputs.out / "model"

    def save_codec(self, model: TunedCodec) -> str:
        """Write model/codec: float16 weights, of which `Codec.from_pretrained` makes its tables in integers.

        Returns:
            Its identity (`Codec.model_id`).
        """
        folder = self.model_folder / "codec"
        save_codec(folder, model.codec)
        return model_id(folder)

    def write_metrics(self, training: dict[str, float], validation: dict[str, dict[str, float]]) -> None:
        """Write metrics.json, as `AdapterStage.fit` does."""
        write_json(self.inputs.out / "metrics.json", {"training": training, "validation": validation})
