"""What the adapter would learn if time were no matter: trained on views that are made as they are needed.

    python -m benchmarks.long_training --images scenes.npy --out data/adapter --minutes 5 --device cuda
    python benchmarks/guidance.py --adapter data/adapter

The demo has minutes of two cores, so it sees each of its scenes at one quality and goes over them five times. Here
every batch is drawn anew from all scenes, qualities and guidance (`adapter.qualities`, `guidance` of params.yaml);
codec and towers run on the GPU, in floats and without entropy coding. Printed is what is left of L_low and L_high on
held-out scenes, as a share of no adapter's; `benchmarks/guidance.py` then asks what it is worth in bits.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components import config
from components.adapter import LatentAdapter
from components.adapter.losses import high_loss, low_loss
from components.codec.config import latent_size
from components.codec.folder import load_codec
from components.codec.guidance import quantize
from components.codec.level_map import quality_map
from components.environment import be_quiet
from components.training.adapter_stage import adapter_config
from components.training.draws import GUIDED_SHARE
from components.training.optimizer import make_optimizers
from components.training.units import measure_units
from components.vision import load_tower

HELD_OUT = 512
WARM = 0.1  # share of the time for L_low alone
SAMPLE = 1024  # views that the adapter's units are measured on

Views = dict[str, Tensor]


class Source:
    """Views of scenes: what a feature store holds, made on the spot.

    Args:
        settings: models, guidance and qualities.
        images: uint8 (N, side, side, 3), as large as the MLLM's tower takes them.
        device: where everything runs.
    """

    def __init__(self, settings: config.Settings, images: np.ndarray, device: torch.device):
        self.settings, self.device = settings, device
        self.codec = load_codec(Path(settings.codec[settings.codecs[0]].weights)).to(device).requires_grad_(False)
        self.tower = load_tower(settings.mllm[settings.mllms[0]].weights, bf16=True).to(device)
        self.guide = load_tower(settings.guidance.tower).to(device)
        held_out = min(HELD_OUT, len(images) // 5)
        self.training, self.held_out = images[:-held_out], images[-held_out:]

    @torch.no_grad()
    def views(self, pictures: np.ndarray, qualities: np.ndarray, guided: np.ndarray) -> Views:
        """`y_hat`, `quality_map`, `patches`, `decoded` and `features`, as `FeatureStore.batch` gives them.

        Args:
            pictures: uint8 (B, side, side, 3).
            qualities, guided: (B,), how each is coded.
        """
        x_B3HW = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2)
        guidance, tower = self.settings.guidance, self.tower
        pixels_B3HW = self.guide.geometry.transform(x_B3HW)
        levels_BGG = quantize(self.guide.cls_attention(pixels_B3HW, guidance.layers), guidance.grid, guidance.k)
        size = latent_size(*pictures.shape[1:3])
        maps = [
            quality_map(int(quality), size, levels if with_map else None, self.codec.config.qualities)
            for quality, levels, with_map in zip(qualities, levels_BGG, guided, strict=True)
        ]
        maps_BHW = torch.from_numpy(np.stack(maps)).to(self.device)
        found = self.codec(x_B3HW.float().div(255).contiguous(memory_format=torch.channels_last), maps_BHW)
        decoded_B3HW = found["x_hat"].clamp(0, 1).mul(255).round().byte()
        patches_BND = tower.patch_embed(tower.geometry.transform(x_B3HW))
        return {
            "y_hat": found["y_hat"],
            "quality_map": maps_BHW,
            "patches": patches_BND,
            "decoded": tower.patch_embed(tower.geometry.transform(decoded_B3HW)),
            "features": tower.forward_from_patches(patches_BND).consumed_BND,
        }

    def draw(self, rng: np.random.Generator, count: int) -> Views:
        """Views of training scenes, each at a quality of its own."""
        chosen = self.training[rng.integers(len(self.training), size=count)]
        qualities = rng.choice(np.array(self.settings.adapter.qualities), count)
        return self.views(chosen, qualities, rng.random(count) < GUIDED_SHARE)


def measure(adapter: LatentAdapter, source: Source, batch: int) -> dict[int, tuple[float, float]]:
    """Quality -> L_low and L_high on the held-out scenes, guided, relative to no adapter's."""
    found = {}
    for quality in sorted(set(source.settings.adapter.qualities)):
        sums = np.zeros(4)
        for start in range(0, len(source.held_out), batch):
            part = source.held_out[start : start + batch]
            views = source.views(part, np.full(len(part), quality), np.ones(len(part), bool))
            with torch.no_grad():
                residual = adapter(views["y_hat"], views["quality_map"])
                pairs = (losses(source, views, added) for added in (residual, torch.zeros_like(residual)))
                sums += len(part) * np.array([loss.item() for pair in pairs for loss in pair])
        found[quality] = (sums[0] / sums[2], sums[1] / sums[3])
    return found


def losses(source: Source, views: Views, residual: Tensor) -> tuple[Tensor, Tensor]:
    """L_low and L_high."""
    seen = source.tower.forward_from_patches(views["decoded"] + residual).consumed_BND
    return low_loss(views["patches"], views["decoded"], residual), high_loss(views["features"], seen)


def train(source: Source, minutes: float, batch: int, seed: int) -> LatentAdapter:
    """Train for so long; prints as it goes."""
    settings, tower = source.settings.adapter, source.tower
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    sizes = adapter_config(source.codec, tower, settings)
    adapter = LatentAdapter(sizes)
    sample = {name: tensor.cpu() for name, tensor in source.draw(rng, min(SAMPLE, len(source.training))).items()}
    adapter.set_scales(*measure_units(sample, tower.grid, sizes.qualities))
    adapter.to(source.device)
    optimizers = make_optimizers(adapter, settings.learning_rate)
    step, began = 0, time.monotonic()
    while (progress := (time.monotonic() - began) / 60 / minutes) < 1:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = settings.learning_rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))
        views = source.draw(rng, batch)
        with torch.autocast(source.device.type, torch.bfloat16):
            residual = adapter(views["y_hat"], views["quality_map"])
        low, high = losses(source, views, residual.float())
        loss = low if progress < WARM else settings.lambda_low * low + settings.lambda_high * high
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        if step % 100 == 0:
            print(f"step {step}  {progress:.0%}  low {low.item():.4f}  high {high.item():.4f}", flush=True)
    print(f"{step} steps, {step * batch} views of {len(source.training)} scenes")
    return adapter.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help=".npy, uint8 (N, side, side, 3)")
    parser.add_argument("--out", type=Path, required=True, help="the adapter's folder")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    be_quiet()
    settings = config.load()
    source = Source(settings, np.load(args.images, allow_pickle=False), torch.device(args.device))
    adapter = train(source, args.minutes, args.batch, settings.seed)
    print("quality   L_low  L_high   left of those without an adapter, held-out scenes")
    for quality, (low, high) in measure(adapter, source, args.batch).items():
        print(f"{quality:7d}{low:8.3f}{high:8.3f}")
    adapter.cpu().save(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
