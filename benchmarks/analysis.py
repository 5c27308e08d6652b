"""Attention looked at while it is computed, against all of it kept with `output_attentions=True` and read afterwards.

    cotam bench analysis [--json]          or: python benchmarks/analysis.py --large --images 2 --repeats 3

Both sides run the same tower on the same pixels and end with the same numbers for every image and layer (checked), by
the same functions. One repeat is a pair, in alternating order; what counts is the ratio within pairs, of processor time
on one thread, which other work on the machine disturbs least. Every measurement is a process of its own, forked with
the tower loaded, so that the highest memory it reached is its own; memory is measured at the number of images and at
four times as many. Codecs take no part: they cost both sides the same.

The linear layers are most of a tower's time and cost both sides the same too. So there is a third row: the time of the
tower alone, by transformers' own fastest attention, which is taken off both sides for a second ratio, of what looking
costs. Without --large it is the micro CLIP; with it, CLIP-L at 336 pixels with random weights.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from components.analysis.flow import NAMES, Ends, ends_of, flow_from
from components.analysis.measure import Measure
from components.analysis.towers import Tower, describe, open_tower
from components.environment import be_quiet, use_threads
from components.progress import track

GROWTH = 4


def streamed(tower: Tower, pixels: torch.Tensor, batch: int) -> np.ndarray:
    """The numbers of every image: (I, L, K)."""
    measure = Measure(tower, 1)
    return np.concatenate([measure(some[:, None]).values_BVLK[:, 0] for some in pixels.split(batch)])


def kept(tower: Tower, pixels: torch.Tensor, batch: int) -> np.ndarray:
    """The same, from attention that was kept."""
    tower.model.set_attn_implementation("eager")
    with torch.inference_mode():
        told = [tower.model(some, output_attentions=True).attentions for some in pixels.split(batch)]
    values = []
    for attentions in told:
        ends = [ends_of(attention_BHTT.mean(1), tower.layout) for attention_BHTT in attentions]
        found = flow_from(Ends(*(torch.cat(parts) for parts in zip(*ends, strict=True))), tower.layout).values
        values.append(torch.stack([found[name] for name in NAMES], -1).unflatten(0, (tower.layers, -1)).transpose(0, 1))
    return torch.cat(values).numpy()


def alone(tower: Tower, pixels: torch.Tensor, batch: int) -> np.ndarray:
    """The tower, and nobody who looks."""
    tower.model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        for some in pixels.split(batch):
            tower.model(some)
    return np.zeros(0)


WAYS = {"streamed": streamed, "kept": kept, "tower alone": alone}


def measured(way: str, tower: Tower, pixels: torch.Tensor, batch: int) -> dict:
    """Run in a process of its own: processor seconds, megabytes beyond what it began with, and the numbers."""
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)

    def work() -> None:
        torch.set_num_threads(1)
        Path("/proc/self/clear_refs").write_text("5")  # the highest memory so far is forgotten
        before, begun = _megabytes("VmRSS"), time.process_time()
        values = WAYS[way](tower, pixels, batch)
        seconds = time.process_time() - begun
        sender.send({"seconds": seconds, "megabytes": _megabytes("VmHWM") - before, "values": values})

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    sender.close()
    found = receiver.recv()
    process.join()
    return found


def _megabytes(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def _compare(streamed_IVLK: np.ndarray, kept_IVLK: np.ndarray, patches: int) -> None:
    """Raises AssertionError where the two sides do not agree. An arg-max may go to another of two equal patches."""
    for place, name in enumerate(NAMES):
        loose = name.startswith(("inflow", "outflow", "d_top1", "summary"))
        np.testing.assert_allclose(
            streamed_IVLK[..., place],
            kept_IVLK[..., place],
            rtol=1e-4,
            atol=1e-5 + (1 / patches if loose else 0),
            err_msg=name,
        )


def measure(open_it: Callable[[], Tower], images: int, repeats: int, batch: int) -> dict:
    """Both sides and the tower alone, `repeats` times, and their memory at two sizes."""
    tower = open_it()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images * GROWTH, 3, *tower.geometry.output_size, generator=generator)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    memory: dict[str, list[float]] = {}
    for repeat in track(range(repeats), "Measuring"):
        values = {}
        for way in list(WAYS) if repeat % 2 else list(WAYS)[::-1]:
            found = measured(way, tower, pixels[:images], batch)
            seconds[way].append(found["seconds"] / images)
            values[way] = found["values"]
            memory.setdefault(way, [found["megabytes"], 0.0])
        _compare(values["streamed"], values["kept"], tower.layout.patches)
    for way in ("streamed", "kept"):
        memory[way][1] = measured(way, tower, pixels, batch)["megabytes"]
    ratios = [old / new for old, new in zip(seconds["kept"], seconds["streamed"], strict=True)]
    looking = [
        (old - tower_alone) / max(new - tower_alone, 1e-9)
        for old, new, tower_alone in zip(seconds["kept"], seconds["streamed"], seconds["tower alone"], strict=True)
    ]
    return {
        "tower": tower.name,
        "layers": tower.layers,
        "tokens": tower.layout.tokens,
        "images": images,
        "batch": batch,
        "repeats": repeats,
        "milliseconds_per_image": {way: round(1000 * statistics.median(times), 2) for way, times in seconds.items()},
        "ratio": _spread(ratios),
        "ratio_of_looking": _spread(looking),
        "megabytes": {way: [round(size, 1) for size in memory[way]] for way in ("streamed", "kept")},
        "images_of_megabytes": [images, images * GROWTH],
    }


def _spread(ratios: list[float]) -> dict[str, float]:
    numbers = {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return {name: round(value, 2) for name, value in numbers.items()}


def large_tower() -> Tower:
    """CLIP-L at 336 pixels, with random weights."""
    from transformers import CLIPVisionModel

    from components.mllm.full_size import llava_7b
    from components.vision import ClipTower, Geometry

    config = llava_7b().vision_config
    geometry = Geometry((0.5,) * 3, (0.5,) * 3, crop=(336, 336))
    return describe(ClipTower(CLIPVisionModel(config), geometry), "random CLIP-L/336")


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", default="pretrained/clip/micro", help="default: %(default)s")
    parser.add_argument("--large", action="store_true", help="CLIP-L at 336 pixels with random weights")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    use_threads(1)
    open_it = large_tower if args.large else lambda: open_tower(args.tower)
    result = measure(open_it, args.images, args.repeats, args.batch)
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    print(
        f"{result['tower']}: {result['layers']} layers, {result['tokens']} tokens; {result['images']} images in batches"
    )
    print(f"of {result['batch']}, {result['repeats']} pairs, processor time of one thread")
    for way, time_taken in result["milliseconds_per_image"].items():
        print(f"  {way:12} {time_taken:9.2f} ms per image")
    for name, title in (("ratio", "kept / streamed"), ("ratio_of_looking", "the same less the tower alone")):
        spread = result[name]
        print(f"{title}: {spread['median']:.2f} ({spread['lowest']:.2f} to {spread['highest']:.2f} over the pairs)")
    few, many = result["images_of_megabytes"]
    for way, (small, big) in result["megabytes"].items():
        print(f"  {way:12} {small:9.1f} MB with {few} images, {big:.1f} MB with {many}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
