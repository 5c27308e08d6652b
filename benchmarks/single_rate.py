"""What ten rates in one model cost at both ends of the range, against models that were trained for one rate only.

    python benchmarks/single_rate.py --low data/pretrain/elic-only-0 --high data/pretrain/elic-only-9 [--json]

A model pays D + lambda R for an image (paper, A.3). The difference in cost, divided by lambda and by the single-rate
model's rate, is how many bits more the variable-rate model needs: its rate penalty, in per cent. It is measured on real
streams of held-out scenes, with a 95 % bootstrap interval over images.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from components.codec import Codec
from components.codec.container import header_bytes
from components.scenes import render, sample_scene
from components.scenes.world import STYLES

REPLICATES = 2000


def points(codec: Codec, images: list[np.ndarray], quality: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits per pixel without the header, and mean squared error on [0, 1], of each image."""
    streams = codec.encode(images, quality)
    decoded = codec.decode(streams)
    bpp = [8 * (len(s) - header_bytes(s)) / (i.shape[0] * i.shape[1]) for s, i in zip(streams, images, strict=True)]
    errors = [np.mean((d.image / 255.0 - i / 255.0) ** 2) for d, i in zip(decoded, images, strict=True)]
    return np.array(bpp), np.array(errors)


def penalty(variable: tuple, single: tuple, weight: float) -> dict[str, float]:
    """Rate penalty in per cent with its interval, and both models' mean rate and PSNR."""
    (bpp_v, mse_v), (bpp_s, mse_s) = variable, single
    excess, base = (mse_v - mse_s) / weight + bpp_v - bpp_s, bpp_s
    draws = np.random.default_rng(0).integers(len(base), size=(REPLICATES, len(base)))
    low, high = np.percentile(100 * excess[draws].mean(1) / base[draws].mean(1), [2.5, 97.5])
    found = {"penalty": 100 * excess.mean() / base.mean(), "low": low, "high": high}
    for name, bpp, mse in (("variable", bpp_v, mse_v), ("single", bpp_s, mse_s)):
        found |= {f"{name}_bpp": bpp.mean(), f"{name}_psnr": np.mean(-10 * np.log10(mse))}
    return {name: round(float(value), 4) for name, value in found.items()}


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", type=Path, default=Path("pretrained/codec/elic-micro"))
    parser.add_argument("--low", type=Path, required=True, help="a codec trained at the lowest quality only")
    parser.add_argument("--high", type=Path, required=True, help="a codec trained at the highest quality only")
    parser.add_argument("--images", type=int, default=100, help="held-out scenes of each style")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    codec = Codec.from_pretrained(args.codec)
    ends = {0: Codec.from_pretrained(args.low), codec.config.qualities - 1: Codec.from_pretrained(args.high)}
    result = {}
    for style in STYLES:
        images = [render(sample_scene(seed, "validation", style)) for seed in range(args.images)]
        for quality, single in ends.items():
            both = points(codec, images, quality), points(single, images, quality)
            result[f"{style} style, quality {quality}"] = penalty(*both, codec.config.lambdas[quality])
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    for name, found in result.items():
        print(
            f"{name}: rate penalty {found['penalty']:+.1f} % ({found['low']:+.1f} to {found['high']:+.1f});  "
            f"ten rates {found['variable_bpp']:.4f} bpp {found['variable_psnr']:.2f} dB, "
            f"one rate {found['single_bpp']:.4f} bpp {found['single_psnr']:.2f} dB"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
