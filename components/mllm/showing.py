"""Images, or what a decoder made of them, as an MLLM sees them: pixels and what the adapter adds to their patches.

The codec coded each image once, at its own size. What the MLLM makes of it (resizing, padding, tiles) happens here, to
the decoded pixels and in the same geometry to the decoded latent: crops of it meet the tiles, the whole of it, resized,
meets the view of the whole (paper, section 3.4).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from components.errors import CotamError
from components.mllm.family import Family
from components.mllm.view import View
from components.mllm.visual import Kind, Seen, Size, Visual
from components.vision import Tower
from components.vision.geometry import to_tensor

if TYPE_CHECKING:
    from components.adapter import LatentAdapter
    from components.codec import Decoded

Sampler = Callable[[Tensor], Tensor]
"""A map over the pixels -> the tower's patches, (T B, C, gh, gw), input by input."""
ON_A_GPU = 32
"""Pictures that an adapter reads together there."""

Picture = Union[Image.Image, np.ndarray, "Decoded"]
"""An image as it is (PIL, or uint8 (H, W, 3)), or as it was decoded."""


def show(
    family: Family,
    groups: Sequence[Sequence[Picture]],
    kind: Kind,
    adapter: "LatentAdapter | None" = None,
    alone: bool = False,
) -> list[Seen]:
    """Each group as one thing to ask about.

    Args:
        family: of the MLLM.
        groups: an image, several images, or the frames of a video, each.
        kind: which of these.
        adapter: speaks for the decoded latents; without one, pixels are all.
        alone: with an adapter, the tower sees what it says and nothing of the pixels.

    Raises:
        CotamError: a group is empty, the MLLM does not take this kind, or the adapter does not fit.
    """
    check_kind(family, kind)
    if not all(groups):
        what = "A video has no frames" if kind is Kind.VIDEO else "A question has no images"
        raise CotamError(f"{what}; give at least one.")
    # One image of "several" is an image.
    kinds = [Kind.IMAGE if kind is Kind.IMAGES and len(group) == 1 else kind for group in groups]
    pictures = [(picture, kind) for group, kind in zip(groups, kinds, strict=True) for picture in group]
    shown = iter(_views(family, pictures, adapter, alone))
    return [_together([next(shown) for _ in group], kind) for group, kind in zip(groups, kinds, strict=True)]


def check_kind(family: Family, kind: Kind) -> None:
    """Raises CotamError when an MLLM does not take this kind."""
    if kind not in family.kinds:
        raise CotamError(f"{type(family).__name__} takes no {kind}; use LLaVA-OneVision or InternVL.")


def _together(images: Sequence[tuple[tuple[View, ...], Size]], kind: Kind) -> Seen:
    views, sizes = zip(*images, strict=True)
    return views[0][0] if kind is Kind.IMAGE and len(views[0]) == 1 else Visual(kind, views, sizes)


def _views(
    family: Family, asked: Sequence[tuple[Picture, Kind]], adapter: "LatentAdapter | None", alone: bool
) -> list[tuple[tuple[View, ...], Size]]:
    """For every picture its views and its height and width; pictures of one size are computed together."""
    pictures = [picture for picture, _ in asked]
    pixels = [to_tensor(getattr(picture, "image", picture)) for picture in pictures]
    shown: dict[int, tuple[tuple[View, ...], Size]] = {}
    for (kind, size, _), group in _alike(asked, pixels, adapter).items():
        framing = family.framing(kind, size)
        views_BT3HW = framing.pixels(torch.stack([pixels[index] for index in group]))
        residual_BTND = None
        if adapter:
            sample = partial(framing.sample_latent, image_size=size, grid=family.tower.grid)
            residual_BTND = _residual([pictures[index] for index in group], adapter, sample, family.tower)
        for place, index in enumerate(group):
            residuals = [None] * views_BT3HW.shape[1] if residual_BTND is None else residual_BTND[place]
            views = zip(views_BT3HW[place], residuals, strict=True)
            shown[index] = (tuple(View(pixels, residual, alone=alone) for pixels, residual in views), size)
    return [shown[index] for index in range(len(pictures))]


def _residual(decoded: Sequence["Decoded"], adapter: "LatentAdapter", sample: Sampler, tower: Tower) -> Tensor:
    """What the adapter says of pictures of one size, (B, T, N, D), on the CPU wherever it is.

    On a GPU a few at a time, since the MLLM lies there too; on the CPU together, as batched sums differ.
    """
    latent_BCHW = torch.stack([torch.as_tensor(item.latent) for item in decoded])
    quality_BHW = torch.stack([torch.as_tensor(item.level_map) for item in decoded]).long()
    for codec in dict.fromkeys(item.codec for item in decoded):
        check_fit(adapter, tower, latent_BCHW.shape[1], codec)
    on_cpu = next(adapter.parameters()).device.type == "cpu"
    return in_parts(adapter, latent_BCHW, quality_BHW, sample, len(decoded) if on_cpu else ON_A_GPU)


def in_parts(
    adapter: "LatentAdapter", latent_BCHW: Tensor, quality_BHW: Tensor, sample: Sampler, at_once: int
) -> Tensor:
    """What an adapter says of latents, `at_once` of them together, (B, T, N, D) on the CPU; T inputs for each."""
    device = next(adapter.parameters()).device
    parts = [
        adapter(latent_bCHW.to(device), quality_bHW.to(device), sample).cpu().unflatten(0, (-1, len(latent_bCHW)))
        for latent_bCHW, quality_bHW in zip(latent_BCHW.split(at_once), quality_BHW.split(at_once), strict=True)
    ]
    return torch.cat(parts, dim=1).transpose(0, 1)


def _alike(
    asked: Sequence[tuple[Picture, Kind]], pixels: Sequence[Tensor], adapter: "LatentAdapter | None"
) -> dict[tuple[Kind, Size, tuple[int, ...]], list[int]]:
    """Kind, size of the image and, with an adapter, shape of its latent -> indices of such pictures."""
    groups: dict[tuple[Kind, Size, tuple[int, ...]], list[int]] = {}
    for index, ((picture, kind), image_3HW) in enumerate(zip(asked, pixels, strict=True)):
        latent = tuple(picture.latent.shape) if adapter else ()
        groups.setdefault((kind, tuple(image_3HW.shape[1:]), latent), []).append(index)
    return groups


def check_fit(adapter: "LatentAdapter", tower: Tower, latent_channels: int, codec: str | None) -> None:
    """Whether an adapter can stand between a codec's latents and this tower.

    Sizes are not enough: towers of all families come in the same sizes, and to another one an adapter says nothing that
    it understands. An adapter that does not know whom it was trained for is taken at its sizes.

    Args:
        adapter: with the identities that its training wrote.
        tower: of the MLLM.
        latent_channels: of the codec.
        codec: its identity (`Codec.model_id`); None: not known.

    Raises:
        CotamError: it cannot.
    """
    config = adapter.config
    if config.latent_channels != latent_channels:
        raise CotamError(
            f"The adapter reads latents of {config.latent_channels} channels, this codec's have {latent_channels}; "
            "use the adapter that was trained on this codec."
        )
    if (config.feature_dim, tuple(config.grid)) != (tower.width, tower.grid):
        raise CotamError(
            f"The adapter speaks to {config.grid} patches of {config.feature_dim} features, this MLLM's tower has "
            f"{tower.grid} of {tower.width}; use the adapter that was trained on this MLLM."
        )
    if config.codec and codec and config.codec != codec:
        raise CotamError(
            f"The adapter was trained on the codec {config.codec}, this one is {codec}; use the adapter that was "
            "trained on this codec, or that codec."
        )
    if config.tower and tower.identity and config.tower != tower.identity:
        raise CotamError(
            f"The adapter was trained on the vision tower {config.tower}, this MLLM's is {tower.identity}; use the "
            "adapter that was trained on this MLLM, or on one with the same tower."
        )
