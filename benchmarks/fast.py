"""What the fast transforms change: pixels, PSNR and latent entries, against the same networks in float32.

    python -m benchmarks.fast [--pictures 5] [--size 256] [--json]

The latent is rounded without its context, so that nothing but the transforms differs. Middles of the photographs.
"""

import argparse
import json
import statistics
import sys

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed import crops
from benchmarks.speed_sides import QUALITIES
from components import config
from components.environment import be_quiet, use_threads
from components.progress import track

PARTS = ("both", "analysis", "synthesis")


@torch.inference_mode()
def compare(model, fast, picture: NDArray[np.uint8], quality: int) -> dict:
    """dB between reconstructions, dB lost to the picture, per cent of the latent's entries that change.

    Args:
        model: in float32.
        fast: its fast transforms.
        picture: (H, W, 3), multiples of 16.
        quality: 0 to 9.
    """
    from components.evaluation.pictures import psnr

    x_13HW = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    map_1HW = torch.full((1, picture.shape[0] // 16, picture.shape[1] // 16), quality)

    def image(transforms, y_hat) -> NDArray[np.uint8]:
        x_hat_13HW = transforms.synthesize(model.ungain(y_hat, map_1HW), map_1HW)
        return x_hat_13HW[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()

    exact, rough = (transforms.analyse(x_13HW, map_1HW).round() for transforms in (model, fast))
    reference = image(model, exact)
    images = {"both": image(fast, rough), "analysis": image(model, rough), "synthesis": image(fast, exact)}
    return {
        "between": {part: psnr(reference, images[part]) for part in PARTS},
        "lost": psnr(picture, reference) - psnr(picture, images["both"]),
        "changed": 100 * float((exact != rough).float().mean()),
    }


def measure(codec_name: str, pictures: int, size: int) -> dict:
    """Means, and the worst, by quality."""
    from components.codec.codec import Codec
    from components.codec.fast import FastTransforms, short_type
    from components.evaluation.pictures import photographs

    model = Codec.from_pretrained(codec_name).model
    fast, result = FastTransforms(model, short_type(torch.device("cpu"))), {}
    cut = crops(list(photographs().values())[:pictures], (size, size))
    for quality in QUALITIES:
        found = [compare(model, fast, picture, quality) for picture in track(cut, f"Quality {quality}")]
        between = {part: [one["between"][part] for one in found] for part in PARTS}
        lost = [one["lost"] for one in found]
        result[str(quality)] = {
            "between": {part: {"mean": statistics.fmean(v), "least": min(v)} for part, v in between.items()},
            "lost": {"mean": statistics.fmean(lost), "most": max(lost)},
            "changed_percent": statistics.fmean(one["changed"] for one in found),
        }
    return result


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default=config.load().codec["elic"].weights, help="(default: params.yaml's)")
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="of each, a multiple of 16")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    use_threads(1)
    result = measure(args.codec, args.pictures, args.size)
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    for quality, row in result.items():
        parts = (f"{part} {v['mean']:.1f} dB (least {v['least']:.1f})" for part, v in row["between"].items())
        print(f"quality {quality}: {', '.join(parts)}")
        print(f"  {row['lost']['mean']:.3f} dB lost (most {row['lost']['most']:.3f})", end="; ")
        print(f"{row['changed_percent']:.4f} % of the latent's entries changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
