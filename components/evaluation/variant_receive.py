"""What an MLLM sees of a variant's files, by its method and by `receive` (params.yaml, `variants`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.config_variants import METHODS
from components.errors import CotamError
from components.evaluation.coding import Coder
from components.evaluation.streams import Setting, Streams

if TYPE_CHECKING:
    from components.codec import Codec, Decoded
    from components.mllm import Mllm, View

See = Callable[[Sequence["Decoded"]], "list[View]"]


@dataclass(frozen=True)
class VariantModels:
    """The folders of what takes part.

    Attributes:
        method, receive: the variant's.
        codec, mllm: the codec that made the files, and who is asked.
        model: what the variant trained; None where it has nothing.
        benchmarks, streams: what is asked about.
    """

    method: str
    receive: str
    codec: Path
    mllm: Path
    model: Path | None
    benchmarks: Path
    streams: Path

    def receiver(self) -> "VariantReceiver":
        """Load everything.

        Raises:
            CotamError: something is missing, or does not belong together.
        """
        from components.codec import Codec
        from components.mllm import load_mllm

        learned = METHODS[self.method].trains
        codec = Codec.from_pretrained(self.codec) if learned else None
        mllm = load_mllm(self.mllm)
        if self.model is not None and (self.model / "mllm").is_dir():
            from components.mllm.overlay import lay_over

            lay_over(mllm, self.model / "mllm")
        see = self._see(codec, mllm) if learned else None
        return VariantReceiver(Streams(self.streams), Coder(codec), mllm, see)

    def _see(self, codec: "Codec", mllm: "Mllm") -> See:
        if self.receive == "picture":
            return lambda decoded: mllm.views([one.image for one in decoded])
        if not METHODS[self.method].adapter:
            from components.mllm.reception import load_reception

            return load_reception(self.method, self.model, codec, mllm).views
        from components.adapter import LatentAdapter
        from components.mllm.showing import check_fit

        adapter = LatentAdapter.load(self.model / "adapter")
        check_fit(adapter, mllm.tower, codec.config.latent_channels, codec.model_id)
        return lambda decoded: mllm.decoded_views(decoded, adapter, alone=self.receive == "adapter")


class VariantReceiver:
    """Turns a variant's files into views."""

    def __init__(self, streams: Streams, coder: Coder, mllm: "Mllm", see: See | None):
        """`see` is None for a conventional codec, whose pictures are seen as they are."""
        self.streams = streams
        self.coder = coder
        self.mllm = mllm
        self.see = see

    def views(self, setting: Setting, style: str) -> "dict[str, View]":
        """Image name -> view, for every image of a style."""
        files = self.streams.files(setting, style)
        if self.see is None:
            pictures = self.coder.pictures(setting, files)
            return dict(zip(pictures, self.mllm.views(list(pictures.values())), strict=True))
        decoded = self.coder.decode(files)
        views = self.see(list(decoded.values()))
        if len(views) != len(decoded):
            raise CotamError(f"{len(decoded)} decoded images gave {len(views)} views; mend the method's reception.")
        return dict(zip(decoded, views, strict=True))
