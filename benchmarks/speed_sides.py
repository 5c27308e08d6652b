"""The two sides of `cotam bench speed`: our codec and CompressAI's layers, with the same weights."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchmarks.compressai_elic import CompressaiElic
    from components.codec.codec import Codec

QUALITIES = (0, 4, 9)


def prepare(folder: Path, codec_name: str, sizes: str | None, picture: np.ndarray) -> tuple["Codec", "Codec", dict]:
    """Both sides' models with one set of weights.

    Args:
        folder: where the weights and the picture go, for cold starts.
        codec_name: the trained codec.
        sizes: "full" to widen it, "as it is" not to.
        picture: what cold starts code.

    Returns:
        Our codec, the same with float32 transforms, and CompressAI's models by quality.
    """
    from benchmarks.widen import widen
    from components.codec.codec import Codec
    from components.codec.folder import save_codec

    model = Codec.from_pretrained(codec_name).model
    save_codec(folder / "codec", widen(model) if sizes == "full" else model)
    codec = Codec.from_pretrained(folder / "codec", fast=True)
    plain = Codec.from_pretrained(folder / "codec")
    np.save(folder / "picture.npy", picture)
    return codec, plain, {quality: compressai(plain.model, quality) for quality in QUALITIES}


def compressai(model, quality: int) -> "CompressaiElic":
    """CompressAI's side of an `Elic` at one quality, ready to code."""
    from benchmarks.compressai_elic import CompressaiElic

    made = CompressaiElic(model, quality).eval()
    made.update()
    return made


def compressai_ways(model: "CompressaiElic") -> tuple[Callable, Callable, Callable]:
    """compress, decompress (both with pixels outside, as ours have them), and the bytes of what lies between."""
    import torch

    def encode(picture: np.ndarray) -> dict:
        x_13HW = torch.from_numpy(picture).permute(2, 0, 1)[None].float().contiguous() / 255
        with torch.inference_mode():
            return model.compress(x_13HW)

    def decode(found: dict) -> np.ndarray:
        with torch.inference_mode():
            x_13HW = model.decompress(strings=found["strings"], shape=found["shape"])["x_hat"]
        return x_13HW[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()

    def size(found: dict) -> int:
        def count(part) -> int:
            return len(part) if isinstance(part, bytes) else sum(map(count, part))

        return count(found["strings"])

    return encode, decode, size
