"""Rate and PSNR of codecs on scenes of the benchmarks' style, from real streams.

    python benchmarks/rate_psnr.py pretrained/codec/elic-micro pretrained/codec/dcae-micro
"""

import argparse

import numpy as np

from components.codec.codec import Codec
from components.evaluation.pictures import psnr
from components.scenes import render, sample_scene


def measure(codec: Codec, pictures: list[np.ndarray], quality: int) -> tuple[float, float]:
    """Mean bits per pixel and mean PSNR in dB."""
    streams = codec.encode(pictures, quality)
    decoded = codec.decode(streams)
    bpp = [8 * len(stream) / picture[..., 0].size for stream, picture in zip(streams, pictures, strict=True)]
    return float(np.mean(bpp)), float(np.mean([psnr(d.image, p) for d, p in zip(decoded, pictures, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("codecs", nargs="+", help="folders or names")
    parser.add_argument("--images", type=int, default=16)
    args = parser.parse_args()
    pictures = [np.array(render(sample_scene(n, "validation", "bench"))) for n in range(args.images)]
    for name in args.codecs:
        codec = Codec.from_pretrained(name)
        for quality in range(codec.config.qualities):
            bpp, db = measure(codec, pictures, quality)
            print(f"{name}  quality {quality}  {bpp:.3f} bpp  {db:.2f} dB", flush=True)


if __name__ == "__main__":
    main()
