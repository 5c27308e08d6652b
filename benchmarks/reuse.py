"""What keeping decoded latents and target features saves: an adapter's training with them kept and with them made anew.

    cotam bench reuse [--json]          or: python -m benchmarks.reuse --rounds 12

A round is a pair on the same 32 drawn scenes: an optimizer step of the joint stage (paper, equation 1) whose batch
comes out of the store (components/training/feature_store.py), and the same step after codec, guidance and tower have
been asked anew. Both are frozen, so the adapter learns the same. With `threads` processors a store is filled by as many
processes, so asking anew is timed on one processor and divided by their number: the best that it could be.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.filling import fill
from components import config
from components.adapter import LatentAdapter
from components.adapter.losses import high_loss, low_loss
from components.codec.codec import Codec
from components.environment import be_quiet, use_threads
from components.progress import track
from components.scenes import render, sample_scene
from components.training.adapter_stage import adapter_config, residual
from components.training.feature_store import PORTION, FeatureStore
from components.training.optimizer import make_optimizers
from components.training.units import measure_units
from components.vision import Tower


def measure(rounds: int, settings: config.Settings, folder: Path) -> dict:
    """Time `rounds` pairs of steps, with a store in `folder`.

    Returns:
        images per second of both (medians), the ratio kept / anew (median, lowest, highest), and how many images per
        second a whole training gets through when every view is made once and seen as often as the settings say.
    """
    use_threads(settings.threads)
    drawn = [Image.fromarray(render(sample_scene(n, "train", "train"))) for n in range(rounds * PORTION + 1)]
    filling = fill(settings, drawn, 1, folder)
    kept = filling.store
    step = _step(settings, filling.codec, filling.tower, kept)
    step(kept.batch(0, np.arange(PORTION)))  # the first is slower

    def reused(start: int) -> None:
        step(kept.batch(0, np.arange(start, start + PORTION)))

    def anew(start: int) -> None:
        torch.set_num_threads(1)
        filling.look_at(start)
        torch.set_num_threads(settings.threads)

    pairs = []
    for number in track(range(rounds), "training"):
        ways = (reused, anew) if number % 2 else (anew, reused)
        seconds = {way: _seconds(way, number * PORTION) for way in ways}
        making = seconds[anew] / settings.threads
        pairs.append((PORTION / seconds[reused], PORTION / (seconds[reused] + making), making))
    ratios = [with_store / without for with_store, without, _ in pairs]
    return {
        "rounds": rounds,
        "threads": settings.threads,
        "kept_images_per_second": round(statistics.median(pair[0] for pair in pairs), 1),
        "anew_images_per_second": round(statistics.median(pair[1] for pair in pairs), 1),
        "making_seconds_per_image": round(statistics.median(pair[2] for pair in pairs) / PORTION, 4),
        "ratio": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)},
    }


def _step(
    settings: config.Settings, codec: Codec, tower: Tower, store: FeatureStore
) -> Callable[[dict[str, Tensor]], None]:
    """An optimizer step of the joint stage, in bfloat16 as components/training/loop.py has it."""
    adapter = LatentAdapter(adapter_config(codec, tower, settings.adapter)).train()
    adapter.set_scales(*measure_units(store.sample(), tower.grid, codec.config.qualities))
    optimizers = make_optimizers(adapter, settings.adapter.learning_rate)

    def step(batch: dict[str, Tensor]) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            added = residual(adapter, batch, tower)
            seen = tower.forward_from_patches(batch["decoded"] + added).consumed_BND
            low, high = low_loss(batch["patches"], batch["decoded"], added), high_loss(batch["features"], seen)
        (settings.adapter.lambda_low * low + settings.adapter.lambda_high * high).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step


def _seconds(work: Callable[[int], None], start: int) -> float:
    begun = time.perf_counter()
    work(start)
    return time.perf_counter() - begun


def _print(found: dict) -> None:
    ratio = found["ratio"]
    print(f"Joint training on {found['threads']} threads, median of {found['rounds']} pairs:")
    print(f"  views kept      {found['kept_images_per_second']:8.1f} images per second")
    print(f"  views made anew {found['anew_images_per_second']:8.1f} images per second")
    print(f"  kept is {ratio['median']:.2f} times as fast ({ratio['lowest']:.2f} to {ratio['highest']:.2f})")
    print(f"A view takes {1000 * found['making_seconds_per_image']:.1f} ms to make, once for all epochs and variants.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    be_quiet()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.rounds, config.load(), Path(folder))
    if args.json:
        print(json.dumps(found))
    else:
        _print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
