"""What Bridge's two trainings share: the neck and the three phases of its surrogate loss (Kao et al., ICLR 2025)."""

import logging
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from components.adapter.losses import high_loss
from components.baselines.bridge import NeckConfig, TransformNeck
from components.baselines.losses import label_loss
from components.baselines.scene_classes import SceneClasses, class_of
from components.errors import CotamError
from components.training.feature_store import FeatureStore
from components.training.loop import Examples, Schedule
from components.training.method_stage import MethodStage
from components.training.units import measure_units
from components.training.unseen import WithoutPictures

logger = logging.getLogger(__name__)

_ALONE = "Bridge is trained on distillation alone."


class BridgeStage(MethodStage):
    """Beside the frozen parts, the classes that labels name."""

    def new_neck(self) -> TransformNeck:
        """An untrained neck in the units of the store's latents; the same for the same seed.

        Raises:
            CotamError: the settings do not fit the tower.
        """
        settings, config = self.settings.bridge, self.codec.config
        if not self.tower.cls:
            raise CotamError(
                f"{self.inputs.mllm} sees through a tower without a class token, which Bridge's neck makes; name "
                "another MLLM, or leave the method out."
            )
        if settings.layer >= self.tower.feature_layer:
            raise CotamError(
                f"baselines.bridge.layer is {settings.layer}, but the MLLM reads its tower's layer "
                f"{self.tower.feature_layer}; choose a smaller one."
            )
        torch.manual_seed(self.inputs.params.seed)
        try:
            sizes = NeckConfig(
                latent_channels=config.latent_channels,
                feature_dim=self.tower.width,
                grid=self.tower.grid,
                qualities=config.qualities,
                layer=settings.layer,
                heads=settings.heads,
            )
        except ValueError:
            raise CotamError(
                f"The tower's width {self.tower.width} is no multiple of baselines.bridge.heads ({settings.heads})."
            ) from None
        neck = TransformNeck(sizes)
        sample = self.store.sample()
        units = measure_units(sample, self.tower.grid, config.qualities)
        with torch.no_grad():
            patches_BND = sample["patches"].to(self.device)
            state_BTD = self.tower.hidden_states(patches_BND, {settings.layer})[settings.layer].double().cpu()
        state_std_D, state_mean_D = torch.std_mean(state_BTD, (0, 1), correction=0)
        neck.set_scales(units.latent_mean_C, units.latent_std_C, state_mean_D, state_std_D)
        return neck

    @cached_property
    def classes(self) -> SceneClasses | None:
        """None, and said why, where there are no labels: then L_dist stands alone."""
        if self.scenes is None:
            logger.warning("The pictures have no scenes and so no labels; %s", _ALONE)
            return None
        try:
            classes = SceneClasses(self.inputs.tower_weights, self.scenes[: len(self.store)], self.inputs.params.seed)
        except CotamError as error:
            logger.warning("%s So there are no labels; %s", error, _ALONE)
            return None
        if not classes.belongs_to(self.tower):
            logger.warning("The MLLM does not see through the CLIP that reads the labels; %s", _ALONE)
            return None
        return classes.to(self.device)

    def surrogate(
        self, tokens_BTD: Tensor, batch: dict[str, Tensor], label: float, distil: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """label L_ce + distil L_dist of a neck's tokens, and its parts."""
        consumed, last = self.tower.feature_layer, self.tower.layers
        wanted = {consumed, last} if label else {consumed}
        states = self.tower.states_from(tokens_BTD, self.settings.bridge.layer, wanted)
        high = high_loss(batch["features"], states[consumed][:, 1:])
        if not label:
            return distil * high, {"high": high}
        classes = self.classes
        named = label_loss(classes.embed(states[last]), classes.classes_KE, batch["label"], classes.scale)
        return label * named + distil * high, {"high": high, "label": named}

    def begin(self, neck: nn.Module) -> None:
        """Ours: first the neck learns to say what the tower's skipped layers would have said of the original.

        That needs nothing of the layers above, and without it the phases below spend their time on what is simple.
        """
        settings = self.settings.bridge

        def loss(module: nn.Module, batch: dict[str, Tensor]):
            with torch.no_grad():
                state_BTD = self.tower.hidden_states(batch["patches"], {settings.layer})[settings.layer]
            said_BTD = module(batch["y_hat"], batch["quality_map"], self.sample)
            state = ((said_BTD - state_BTD) / neck.output_std_D).square().mean()
            return state, {"state": state}

        schedule = Schedule(settings.start_epochs, self.inputs.params.adapter.batch, settings.learning_rate)
        if settings.start_epochs:
            self.fit_phase("neck-start", neck, loss, self.store, schedule)

    def train_neck(self, neck: nn.Module) -> dict[str, float]:
        """The three phases under one learning rate schedule, on the frozen codec's latents; the last phase's means."""
        settings, batch_size = self.settings.bridge, self.inputs.params.adapter.batch
        self.begin(neck)
        phases = [(1.0, 0.0), (1.0, settings.distillation), (0.0, settings.distillation)]
        epochs = list(settings.epochs)
        examples: Examples = self.store
        if self.classes is None:
            phases, epochs = phases[2:], [sum(epochs)]
        else:
            examples = Labelled(self.store, torch.tensor([class_of(scene) for scene in self.scenes]))
        last: dict[str, float] = {}
        for number, (label, distil) in enumerate(phases):
            if not epochs[number]:
                continue

            def loss(module: nn.Module, batch: dict[str, Tensor], label=label, distil=distil):
                return self.surrogate(module(batch["y_hat"], batch["quality_map"], self.sample), batch, label, distil)

            schedule = Schedule(
                epochs[number],
                batch_size,
                settings.learning_rate,
                before=sum(epochs[:number]),
                after=sum(epochs[number + 1 :]),
            )
            last = self.fit_phase(f"neck-{number}", neck, loss, examples, schedule)
        return last


class Labelled:
    """A store's examples with `label` (B,), int64."""

    def __init__(self, store: FeatureStore | WithoutPictures, labels_N: Tensor):
        self.store, self.labels_N = store, labels_N

    def __len__(self) -> int:
        return len(self.store)

    def order(self, epoch: int) -> np.ndarray:
        """As the store's."""
        return self.store.order(epoch)

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, Tensor]:
        """As the store's, with labels."""
        return self.store.batch(epoch, examples) | {"label": self.labels_N[torch.as_tensor(examples)]}
