"""What one question is about: an image in several views, several images, or the frames of a video."""

from dataclasses import dataclass
from enum import StrEnum

from components.mllm.view import View

Size = tuple[int, int]
"""Height and width."""


class Kind(StrEnum):
    """How the views of a `Visual` belong together."""

    IMAGE = "image"  # one image, in tiles where the MLLM cuts it
    IMAGES = "images"  # several images in one question (MMMU)
    VIDEO = "video"  # frames in the order of time (Video-MME)


@dataclass(frozen=True, eq=False)
class Visual:
    """Views that enter an MLLM together. Compared by identity, like `View`: it is seen once.

    A `View` alone is an image in one view.
    """

    kind: Kind
    images: tuple[tuple[View, ...], ...]
    """Of every image or frame, its views in the order in which the MLLM takes them."""
    sizes: tuple[Size, ...]
    """Of every image or frame, as it is; LLaVA-OneVision takes padding away by it."""

    @property
    def views(self) -> list[View]:
        """All of them, in order."""
        return [view for image in self.images for view in image]


Seen = View | Visual
"""What `Mllm.answer` is asked about."""


def as_visual(seen: Seen) -> Visual:
    """A view alone as the visual that it stands for; its size then counts for nothing."""
    return seen if isinstance(seen, Visual) else Visual(Kind.IMAGE, ((seen,),), ((0, 0),))
