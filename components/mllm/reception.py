"""How what a decoder gives becomes what an MLLM is shown, for every method that is compared."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from components.adapter import LatentAdapter
from components.baselines.bridge import TransformNeck
from components.errors import CotamError
from components.mllm.mllm import Mllm
from components.mllm.showing import check_fit
from components.mllm.view import Entry, View

if TYPE_CHECKING:
    from components.codec import Codec, Decoded

ADAPTED = ("cotam", "cotam-ft")
BRIDGED = ("bridge-d1", "bridge-d3")
PICTURES = ("icmh-adapt", "mft", "mft-full", "cft")
METHODS = (*ADAPTED, *BRIDGED, *PICTURES)


class Reception(Protocol):
    """Shows decoded files to an MLLM."""

    def views(self, decoded: Sequence["Decoded"]) -> list[View]: ...


class PictureReception:
    """The MLLM sees the decoded pictures."""

    def __init__(self, mllm: Mllm):
        self.mllm = mllm

    def views(self, decoded: Sequence["Decoded"]) -> list[View]:
        """One view per file, in their order."""
        return self.mllm.views([one.image for one in decoded])


class AdapterReception:
    """The decoded pictures, and what an adapter reads in the latents."""

    def __init__(self, mllm: Mllm, adapter: LatentAdapter):
        self.mllm, self.adapter = mllm, adapter

    def views(self, decoded: Sequence["Decoded"]) -> list[View]:
        """One view per file, in their order."""
        return self.mllm.decoded_views(decoded, self.adapter)


class BridgeReception:
    """What a neck makes of the latents; pictures are not looked at."""

    def __init__(self, mllm: Mllm, neck: TransformNeck):
        self.mllm, self.neck = mllm, neck

    @torch.inference_mode()
    def views(self, decoded: Sequence["Decoded"]) -> list[View]:
        """One view per file, in their order."""
        views: dict[int, View] = {}
        tower, geometry = self.mllm.tower, self.mllm.geometry
        for (size, _), group in _by_shape(decoded).items():
            items = [decoded[index] for index in group]
            latent_BCHW = torch.stack([torch.as_tensor(item.latent) for item in items])
            quality_BHW = torch.stack([torch.as_tensor(item.level_map) for item in items]).long()
            sample = partial(geometry.sample_latent, image_size=size, grid=tower.grid)
            tokens_BTD = self.neck(latent_BCHW, quality_BHW, sample)
            found = [View(None, entry=Entry(tokens_TD, self.neck.config.layer)) for tokens_TD in tokens_BTD]
            views |= zip(group, found, strict=True)
        return [views[index] for index in range(len(decoded))]


def _by_shape(decoded: Sequence["Decoded"]) -> dict[tuple, list[int]]:
    """Indices of the decoded images by the (height, width) of the image and the latent's shape."""
    groups: dict[tuple, list[int]] = {}
    for index, item in enumerate(decoded):
        groups.setdefault((tuple(item.image.shape[:2]), tuple(item.latent.shape)), []).append(index)
    return groups


def load_reception(method: str, model: Path, codec: "Codec", mllm: Mllm) -> Reception:
    """How a method's files are shown.

    Args:
        method: one of `METHODS`.
        model: the folder that the method's training wrote, with `adapter/` or `neck/` where it has one.
        codec: what decodes its files.
        mllm: with the method's own weights, if it has some (`components.mllm.overlay`).

    Raises:
        CotamError: there is no such method, a part is missing or damaged, or was trained for another codec or tower.
    """
    if method in PICTURES:
        return PictureReception(mllm)
    if method in ADAPTED:
        adapter = LatentAdapter.load(model / "adapter")
        check_fit(adapter, mllm.tower, codec.config.latent_channels, codec.model_id)
        return AdapterReception(mllm, adapter)
    if method in BRIDGED:
        neck = TransformNeck.load(model / "neck")
        check_neck(neck, codec.config.latent_channels, mllm)
        return BridgeReception(mllm, neck)
    raise CotamError(f"There is no method {method}; the methods are {', '.join(METHODS)}.")


def check_neck(neck: TransformNeck, latent_channels: int, mllm: Mllm) -> None:
    """Raises CotamError when a neck cannot stand between this latent and this MLLM's tower."""
    config, tower = neck.config, mllm.tower
    if config.latent_channels != latent_channels:
        raise CotamError(
            f"The neck reads latents of {config.latent_channels} channels but the codec writes {latent_channels}; "
            "train a neck for this codec."
        )
    if (config.feature_dim, tuple(config.grid)) != (tower.width, tower.grid) or config.layer >= tower.feature_layer:
        raise CotamError("The neck was trained for another vision tower; train one for this MLLM.")
