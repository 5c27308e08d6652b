"""The codec as others use it: images in, `.cotam` streams out, and back.

    codec = Codec.from_pretrained("pretrained/codec/elic-micro")
    streams = codec.encode([image], quality=4)
    [decoded] = codec.decode(streams)
    decoded.image, decoded.latent, decoded.level_map

Images of one size go through the entropy model together, a few at a time. The transforms, in float32, take them one by
one: there a sum's order, and with it a stream or a pixel, would depend on what else is in the batch. A large image they
take tile by tile (`tiles.py`).
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from components.codec import level_map, tiles, video
from components.codec.architectures import AnyConfig, architecture_of
from components.codec.config import STRIDE, latent_size
from components.codec.container import MAXIMUM_PIXELS, Header, check_size, pack, unpack
from components.codec.dcae_wire import DcaeWire
from components.codec.fast import FastTransforms, short_type
from components.codec.folder import load_codec, model_id
from components.codec.published import load_published
from components.codec.transforms import VariableRate
from components.codec.video_container import MAXIMUM_VIDEO_PIXELS
from components.codec.wire import Quantizer, Reader, Wire
from components.errors import CotamError
from components.weights import resolve

LARGEST_WHOLE = 1 << 22  # pixels that a codec without tiles takes at once; a few GB
PIXELS_AT_ONCE = 1 << 19  # 32 images of 128 x 128: beyond that a batch is no faster, only larger

Levels = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a decoder gets out of a stream.

    Attributes:
        image: uint8 (H, W, 3).
        latent: float32 (C, h, w), the decoded latent after its inverse gain; h = ceil(H / 16).
        level_map: int64 (h, w), the quality of every latent position.
        quality: the base quality.
        codec: the identity of the one that decoded it (`Codec.model_id`), which an adapter may ask for.
    """

    image: NDArray[np.uint8]
    latent: NDArray[np.float32]
    level_map: NDArray[np.int64]
    quality: int
    codec: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[:2]


class Codec:
    """A trained codec: networks, wire, and the identity that its streams carry.

    Args:
        model, identity: what `from_pretrained` loads.
        device, fast: as there.
    """

    def __init__(
        self, model: VariableRate, identity: str, device: torch.device | str = "cpu", fast: bool | None = False
    ):
        self.architecture = architecture_of(model.config)
        if fast and not self.architecture.fast:
            raise CotamError("There are fast transforms for our own ELIC alone; leave out --fast.")
        self.device = torch.device(device)
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)
        self.model_id = identity
        fast = self.architecture.fast if fast is None else fast
        self.transforms = FastTransforms(self.model, short_type(self.device)) if fast else self.model

    @property
    def arithmetic(self) -> str:
        """A name of what the transforms compute: whoever keeps results tells by it those of others apart."""
        return self.transforms.identity if isinstance(self.transforms, FastTransforms) else "float32"

    @cached_property
    def wire(self) -> Wire | DcaeWire:
        """Made when it is first used: before a fork, nothing may compute."""
        return Wire(self.model, self.device) if self.architecture.exact else DcaeWire(self.model)

    @property
    def maximum_pixels(self) -> int:
        """Of an image."""
        return MAXIMUM_PIXELS if self.architecture.tiled else LARGEST_WHOLE

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, device: torch.device | str = "cpu", fast: bool | None = False
    ) -> "Codec":
        """Load a codec's folder, by path or by a name that `components.weights.resolve` knows, or a published file.

        Args:
            name_or_path: where it is; a file is a published single-rate checkpoint (`components.codec.published`).
            device: where to compute. A stream of one device is read on any other.
            fast: whether the transforms may round more (`components.codec.fast`): pixels change by less than can be
                seen, and a stream by a few symbols. Whoever decodes need not choose as the encoder did. None: yes where
                the architecture has such transforms.

        Raises:
            CotamError: there is none, or it is damaged.
        """
        if Path(name_or_path).is_file():
            return cls(*load_published(name_or_path), device, fast)
        folder = resolve(name_or_path)
        return cls(load_codec(folder), model_id(folder), device, fast)

    @property
    def config(self) -> AnyConfig:
        """Its sizes: `latent_channels`, `qualities`, ..."""
        return self.model.config

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the latent of an image of this size."""
        return latent_size(height, width)

    def encode(
        self,
        images: Sequence[Image.Image | NDArray[np.uint8]],
        quality: int | Sequence[int],
        guidance: Sequence[Levels | None] | None = None,
    ) -> list[bytes]:
        """Code images at their own size.

        Args:
            images: PIL images (RGB, see `components.data.images.open_image`) or uint8 arrays (H, W, 3).
            quality: 0 (fewest bits) to 9, for all or for each.
            guidance: for each image its levels (rows, columns), or None (`components.codec.guidance`).

        Returns:
            One `.cotam` stream per image. Their length is their rate.

        Raises:
            CotamError: a quality that does not exist, an image too large, or an array that is no RGB image.
        """
        jobs = self._jobs(images, quality, guidance)
        streams: dict[int, bytes] = {}
        for batch in _batches(jobs, lambda job: job.pixels.shape):
            source = Quantizer(self.wire.tables)
            covered = self._quantize(source, batch)[1]  # the latent is not kept: of a large image it is large
            payloads = source.streams([job.levels for job in batch])
            for job, payload, parts in zip(batch, payloads, covered, strict=True):
                height, width = job.pixels.shape[:2]
                grid = None if job.levels is None else job.levels.shape
                steps = level_map.steps_of(job.levels)
                header = Header(self.model_id, width, height, job.quality, grid, steps=steps)
                streams[job.place] = pack(header, payload, header.checksum(_level_bytes(job.levels), parts))
        return [streams[place] for place in range(len(jobs))]

    def reconstruct(
        self,
        images: Sequence[Image.Image | NDArray[np.uint8]],
        quality: int | Sequence[int],
        guidance: Sequence[Levels | None] | None = None,
        batched: bool = False,
    ) -> list[Decoded]:
        """What `decode(encode(...))` gives, without writing and reading the streams: for training on decoded images.

        Args:
            images, quality, guidance: as for `encode`.
            batched: whether small images go through the transforms together. That is twice as fast, and not quite
                what a decoder gets: sums in another order round a few latent entries and pixels the other way.

        Raises:
            CotamError: as `encode`.
        """
        jobs = self._jobs(images, quality, guidance)
        decoded: dict[int, Decoded] = {}
        for batch in _batches(jobs, lambda job: job.pixels.shape):
            y_hat_BCHW, _ = self._quantize(Quantizer(self.wire.tables), batch, batched)
            maps = np.stack([job.quality_map for job in batch])
            size = batch[0].pixels.shape[:2]
            found = self._synthesize(y_hat_BCHW, maps, size, [job.quality for job in batch], batched)
            decoded |= zip((job.place for job in batch), found, strict=True)
        return [decoded[place] for place in range(len(jobs))]

    def decode(self, streams: Sequence[bytes], maximum_pixels: int = MAXIMUM_PIXELS) -> list[Decoded]:
        """Decode streams that this codec made.

        Raises:
            CotamError: a stream is damaged, cut short, foreign, from another codec, or declares too large an image.
        """
        opened = []
        for place, stream in enumerate(streams):
            header, payload = unpack(stream, min(maximum_pixels, self.maximum_pixels))
            self._check_origin(header)
            opened.append((place, header, payload))
        decoded: dict[int, Decoded] = {}
        for batch in _batches(opened, lambda item: (item[1].height, item[1].width, item[1].grid, item[1].steps)):
            places, headers, payloads = zip(*batch, strict=True)
            size = headers[0].latent_size
            count, first = self.wire.symbol_count(size), headers[0]
            reader = Reader(payloads, count, first.grid, self.wire.tables, first.steps)
            levels = reader.levels()
            maps = np.stack(
                [
                    level_map.quality_map(header.quality, size, grid, self.config.qualities)
                    for header, grid in zip(headers, levels, strict=True)
                ]
            )
            y_hat_BCHW, covered = self.wire.walk(reader, torch.from_numpy(maps).to(self.device))
            for header, grid, parts in zip(headers, levels, covered, strict=True):
                if header.checksum(_level_bytes(grid), parts) != header.check:
                    raise CotamError(
                        "The stream is damaged, or was coded on a machine whose arithmetic disagrees; copy it again."
                    )
            size = (headers[0].height, headers[0].width)
            found = self._synthesize(y_hat_BCHW, maps, size, [header.quality for header in headers])
            decoded |= zip(places, found, strict=True)
        return [decoded[place] for place in range(len(streams))]

    def encode_all(
        self, images: Iterable[Image.Image | NDArray[np.uint8]], quality: int, portion: int = 32
    ) -> Iterator[bytes]:
        """One stream after another for images that need not fit into memory together; without guidance.

        Args:
            images: any iterable, of any sizes; read `portion` at a time.
            quality: for all.
            portion: images of one call to `encode`.
        """
        for part in _portions(images, portion):
            yield from self.encode(part, quality)

    def decode_all(self, streams: Iterable[bytes], portion: int = 32) -> Iterator[Decoded]:
        """One result after another of streams that, decoded, need not fit into memory together."""
        for part in _portions(streams, portion):
            yield from self.decode(part)

    def encode_video(
        self,
        frames: Sequence[Image.Image | NDArray[np.uint8]],
        quality: int,
        guidance: Sequence[Levels | None] | None = None,
        times: Sequence[int] | None = None,
    ) -> bytes:
        """Code frames of one size into one `.cotamv` stream; see `components.codec.video.encode_video`."""
        return video.encode_video(self, frames, quality, guidance, times)

    def decode_video(self, stream: bytes, maximum_pixels: int = MAXIMUM_VIDEO_PIXELS) -> list[Decoded]:
        """Every frame of a `.cotamv` stream; see `components.codec.video.decode_frames`, which gives them singly."""
        return list(video.decode_frames(self, stream, maximum_pixels))

    def _check_origin(self, header: Header) -> None:
        if header.model_id != self.model_id:
            raise CotamError(
                f"The stream was made by codec {header.model_id}, this one is {self.model_id}; "
                "decode it with the codec that made it."
            )
        if header.quality >= self.config.qualities:
            raise CotamError(f"The stream is damaged: it names quality {header.quality}; copy it again.")

    def _jobs(
        self,
        images: Sequence[Image.Image | NDArray[np.uint8]],
        quality: int | Sequence[int],
        guidance: Sequence[Levels | None] | None,
    ) -> list["_Job"]:
        qualities = [quality] * len(images) if isinstance(quality, int) else [int(q) for q in quality]
        grids = [None] * len(images) if guidance is None else guidance
        jobs = []
        for place, (image, q, grid) in enumerate(zip(images, qualities, grids, strict=True)):
            if not 0 <= q < self.config.qualities:
                raise CotamError(f"There is no quality {q}; choose 0 (fewest bits) to {self.config.qualities - 1}.")
            pixels = _pixels(image)
            height, width = pixels.shape[:2]
            check_size(width, height, self.maximum_pixels)
            levels = None if grid is None else level_map.check(np.asarray(grid))
            size = latent_size(height, width)
            jobs.append(_Job(place, pixels, q, levels, level_map.quality_map(q, size, levels, self.config.qualities)))
        return jobs

    @torch.inference_mode()
    def _quantize(
        self, source: Quantizer, batch: Sequence["_Job"], batched: bool = False
    ) -> tuple[Tensor, list[bytes]]:
        maps_BHW = torch.from_numpy(np.stack([job.quality_map for job in batch])).to(self.device)
        pixels = [job.pixels for job in batch]
        parts = _slices(len(batch), batched)
        y_BCHW = torch.cat([self._analyse(pixels[part], maps_BHW[part]) for part in parts])
        return self.wire.walk(source, maps_BHW, y_BCHW)

    @cached_property
    def _halos(self) -> tiles.Halos:
        """Found when the first large image comes: before a fork, nothing may compute."""
        return tiles.halos(self.model)

    def _tiles(self, maps_BHW: Tensor, transform: str) -> list[tiles.Tile]:
        _, height, width = maps_BHW.shape
        # Not all can be cut: Swin windows, for one, lie on a grid of the whole image.
        large = height * width * STRIDE**2 > tiles.WHOLE and self.architecture.tiled
        return tiles.cut((height, width), getattr(self._halos, transform)) if large else [tiles.whole(height, width)]

    def _analyse(self, pixels: Sequence[NDArray[np.uint8]], maps_BHW: Tensor) -> Tensor:
        """The latents (B, C, h, w) of images of one size, tile by tile."""
        cut = self._tiles(maps_BHW, "analysis")
        if len(cut) == 1:
            return self.transforms.analyse(_as_tensor(pixels).to(self.device), maps_BHW)
        batch, *size = maps_BHW.shape
        y_BCHW = torch.empty(batch, self.config.latent_channels, *size, device=self.device)
        for tile in cut:
            x_B3HW = _as_tensor([image[tile.around(STRIDE)] for image in pixels]).to(self.device)
            y_BCHW[..., *tile.core()] = self.transforms.analyse(x_B3HW, maps_BHW[:, *tile.around()])[..., *tile.inner()]
        return y_BCHW

    @torch.inference_mode()
    def _synthesize(
        self,
        y_hat_BCHW: Tensor,
        maps: NDArray[np.int64],
        size: tuple[int, int],
        qualities: Sequence[int],
        batched: bool = False,
    ) -> list[Decoded]:
        maps_BHW = torch.from_numpy(maps).to(self.device)
        latent_BCHW = self.model.ungain(y_hat_BCHW, maps_BHW)
        parts = _slices(len(maps), batched)
        images = [image for part in parts for image in self._images(latent_BCHW[part], maps_BHW[part], size)]
        latents = [latent_CHW.contiguous().cpu().numpy() for latent_CHW in latent_BCHW]
        return [Decoded(*found, self.model_id) for found in zip(images, latents, maps, qualities, strict=True)]

    def _images(self, latent_BCHW: Tensor, maps_BHW: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The images (B, H, W, 3) of latents of one size, tile by tile."""
        images = np.empty((len(maps_BHW), *size, 3), np.uint8)
        for tile in self._tiles(maps_BHW, "synthesis"):
            part_BCHW = latent_BCHW[..., *tile.around()].contiguous(memory_format=torch.channels_last)
            x_B3HW = self.transforms.synthesize(part_BCHW, maps_BHW[:, *tile.around()])[..., *tile.inner(STRIDE)]
            area = images[:, *tile.core(STRIDE)]  # at the right and lower border less than the tile
            pixels_BHW3 = x_B3HW.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)
            area[:] = pixels_BHW3[:, : area.shape[1], : area.shape[2]].cpu().numpy()
        return images


@dataclass(frozen=True, eq=False)
class _Job:
    """One image to code, and where it stood in the list."""

    place: int
    pixels: NDArray[np.uint8]
    quality: int
    levels: Levels | None
    quality_map: NDArray[np.int64]


def _pixels(image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise CotamError(f"An image is uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}; convert it first.")
    return pixels


def _level_bytes(levels: Levels | None) -> bytes:
    return b"" if levels is None else levels.tobytes()


def _as_tensor(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Images (H, W, 3) of one size -> (B, 3, H, W) in [0, 1], padded with their borders to multiples of 16."""
    x_B3HW = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    height, width = x_B3HW.shape[-2:]
    padded = F.pad(x_B3HW, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
    return padded.contiguous(memory_format=torch.channels_last)


def _slices(count: int, batched: bool) -> list[slice]:
    """All together, or one by one."""
    return [slice(0, count)] if batched else [slice(k, k + 1) for k in range(count)]


def _portions(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items, the last may be shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _batches(items: Iterable, key) -> Iterator[list]:
    """Items of the same key (which starts with height and width) together, as many as `PIXELS_AT_ONCE` allows."""
    groups: dict[Hashable, list] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    for (height, width, *_), group in groups.items():
        count = max(1, PIXELS_AT_ONCE // (height * width))
        for start in range(0, len(group), count):
            yield group[start : start + count]
