"""Pictures, several of them, or videos, as they are or decoded: one call for whatever is asked about."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.mllm.mllm import Mllm
from components.mllm.showing import Picture
from components.mllm.visual import Kind, Seen

if TYPE_CHECKING:
    from components.adapter import LatentAdapter


def see(
    mllm: Mllm, kind: Kind, groups: Sequence[Sequence[Picture]], adapter: "LatentAdapter | None" = None
) -> list[Seen]:
    """Groups of pictures, as they are or decoded, each as one thing to ask an MLLM about.

    Raises:
        CotamError: the MLLM does not take this kind, or the adapter does not fit.
    """
    if kind is Kind.VIDEO:
        return mllm.video_views(groups, adapter)
    if kind is Kind.IMAGES:
        return mllm.several_views(groups, adapter)
    pictures = [picture for (picture,) in groups]
    if adapter is not None:
        return mllm.decoded_views(pictures, adapter)
    return mllm.views([getattr(picture, "image", picture) for picture in pictures])
