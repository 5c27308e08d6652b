"""Rate and PSNR of codecs on scenes of the benchmarks' style, from real streams.

    python -m benchmarks.rate_psnr pretrained/codec/elic-micro pretrained/codec/dcae-micro
"""

import argparse

import numpy as np

from benchmarks.codec import mean_point
from components.codec.codec import Codec
from components.scenes import render, sample_scene


def measure(codec: Codec, pictures: list[np.ndarray], quality: int) -> tuple[float, float]:
    """Mean bits per pixel and mean PSNR in dB."""
    streams = codec.encode(pictures, quality)
    decoded = codec.decode(streams)
    return mean_point(pictures, [one.image for one in decoded], [len(stream) for stream in streams])


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
