"""Attention looked at while it is computed, against all of it kept with `output_attentions=True` and read afterwards.

    cotam bench analysis [--json]          or: python benchmarks/analysis.py --large --images 2 --repeats 3

Both sides take the same pixels to the same tower's weights and end with the same numbers for every image and layer,
which is checked. The other side is what one would write down: the model's own forward, then torch's functions, a layer
at a time. A second one reads what it kept with our functions, and the tower alone, without anybody who looks, is
measured as transformers runs it fastest. One repeat is a pair, in alternating order; what counts is the ratio within
pairs, of processor time on one thread, which other work on the machine disturbs least. Every measurement is a process
of its own, forked with the tower loaded, so that the highest memory it reached is its own; memory is measured at the
number of images and at four times as many. Codecs take no part: they cost both sides the same.

Without --large it is the micro CLIP; with it, CLIP-L at 336 pixels with random weights.
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

from components.analysis.flow import FLOWS, NAMES, NEIGHBOUR, SUMMARY_FACTOR, Ends, Layout, ends_of, flow_from
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
    """The same from attention that was kept, as one would write it down: a layer at a time, with torch's functions."""
    return np.concatenate([_told(told, tower.layout) for told in _kept(tower, pixels, batch)])


def kept_read_fast(tower: Tower, pixels: torch.Tensor, batch: int) -> np.ndarray:
    """Attention that was kept, read with the functions of `streamed`: what is gained without them."""
    values = []
    for attentions in _kept(tower, pixels, batch):
        ends = [ends_of(attention_BHTT.mean(1), tower.layout) for attention_BHTT in attentions]
        found = flow_from(Ends(*(torch.cat(parts) for parts in zip(*ends, strict=True))), tower.layout).values
        values.append(torch.stack([found[name] for name in NAMES], -1).unflatten(0, (tower.layers, -1)).transpose(0, 1))
    return torch.cat(values).numpy()


def _kept(tower: Tower, pixels: torch.Tensor, batch: int) -> list[tuple[torch.Tensor, ...]]:
    tower.model.set_attn_implementation("eager")
    with torch.inference_mode():
        return [tower.model(some, output_attentions=True).attentions for some in pixels.split(batch)]


def _told(attentions: tuple[torch.Tensor, ...], layout: Layout) -> np.ndarray:
    """The numbers of some images by the definitions in docs/analysis.md: (B, L, K)."""
    cls, patches, layers = layout.cls, layout.patches, []
    own_N = torch.arange(patches)
    for attention_BHTT in attentions:
        mean_BTT = attention_BHTT.mean(1)
        among_BNN = mean_BTT[:, cls:, cls:]
        weighted_BN = (among_BNN * layout.distances_NN).sum(-1)
        given_BN = among_BNN.sum(1) - among_BNN.diagonal(dim1=1, dim2=2)
        received_BN = patches * given_BN / given_BN.sum(-1, keepdim=True).clamp_min(1e-12)
        summary_BN = received_BN >= SUMMARY_FACTOR
        told = {
            "d_avg": weighted_BN.mean(-1),
            "d_avg_patches": (weighted_BN / among_BNN.sum(-1)).mean(-1),
            "d_top1": layout.distances_NN[own_N, among_BNN.argmax(-1)].mean(-1),
            "cls_share": mean_BTT[:, cls:, :cls].sum(-1).mean(-1),
            "summary_tokens": summary_BN.sum(-1),
            "summary_share": (received_BN * summary_BN).sum(-1) / patches,
        }
        for name, ends_BT in (("inflow", mean_BTT.argmax(-1)), ("outflow", mean_BTT.argmax(-2))):
            ends_BN = ends_BT[:, cls:] - cls
            at_BN = ends_BN.clamp_min(0)
            near_BN = layout.distances_NN[own_N, at_BN] <= NEIGHBOUR
            kind_BN = torch.where(near_BN, FLOWS.index("neighbour"), FLOWS.index("far"))
            kind_BN[summary_BN.gather(-1, at_BN)] = FLOWS.index("summary")
            kind_BN[ends_BN == own_N] = FLOWS.index("itself")
            kind_BN[ends_BN < 0] = FLOWS.index("cls")
            told |= {f"{name}_{kind}": (kind_BN == place).double().mean(-1) for place, kind in enumerate(FLOWS)}
        layers.append(torch.stack([told[name].double() for name in NAMES], -1))
    return torch.stack(layers, 1).numpy()


def alone(tower: Tower, pixels: torch.Tensor, batch: int) -> np.ndarray:
    """transformers' tower with its own fastest attention, and nobody who looks."""
    tower.model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        for some in pixels.split(batch):
            tower.model(some)
    return np.zeros(0)


WAYS = {"streamed": streamed, "kept": kept, "kept, read fast": kept_read_fast, "tower alone": alone}


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


def _compare(streamed_IVLK: np.ndarray, kept_IVLK: np.ndarray, layout: Layout) -> None:
    """Raises AssertionError where the two sides do not agree.

    Of two patches that are equal but for rounding, one side's arg-max may be the one and the other's the other; and a
    patch that is just about a summary token may be one on one side alone.
    """
    one, farthest = 1 / layout.patches, float(layout.distances_NN.max())
    allowed = {"d_top1": farthest * one, "summary_tokens": 1, "summary_share": 2 * SUMMARY_FACTOR * one}
    for place, name in enumerate(NAMES):
        loose = one if name.startswith(("inflow", "outflow")) else allowed.get(name, 0)
        np.testing.assert_allclose(
            streamed_IVLK[..., place], kept_IVLK[..., place], rtol=1e-4, atol=1e-5 + loose, err_msg=name
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
        for way in ("kept", "kept, read fast"):
            _compare(values["streamed"], values[way], tower.layout)
    for way in ("streamed", "kept"):
        memory[way][1] = measured(way, tower, pixels, batch)["megabytes"]
    return {
        "tower": tower.name,
        "layers": tower.layers,
        "tokens": tower.layout.tokens,
        "images": images,
        "batch": batch,
        "repeats": repeats,
        "milliseconds_per_image": {way: round(1000 * statistics.median(times), 2) for way, times in seconds.items()},
        "ratio": _spread(seconds["kept"], seconds["streamed"]),
        "ratio_read_fast": _spread(seconds["kept, read fast"], seconds["streamed"]),
        "megabytes": {way: [round(size, 1) for size in memory[way]] for way in ("streamed", "kept")},
        "images_of_megabytes": [images, images * GROWTH],
    }


def _spread(old: list[float], new: list[float]) -> dict[str, float]:
    """How many times as fast the new way is, over the pairs."""
    ratios = [one / other for one, other in zip(old, new, strict=True)]
    numbers = {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return {name: round(value, 2) for name, value in numbers.items()}


def large_tower(layers: int | None = None) -> Tower:
    """CLIP-L at 336 pixels, with random weights; or its first layers alone."""
    from transformers import CLIPVisionModel

    from components.mllm.full_size import llava_7b
    from components.vision import ClipTower, Geometry

    config = llava_7b().vision_config
    config.num_hidden_layers = layers or config.num_hidden_layers
    geometry = Geometry((0.5,) * 3, (0.5,) * 3, crop=(336, 336))
    return describe(ClipTower(CLIPVisionModel(config), geometry), "random CLIP-L/336")


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", default="pretrained/clip/micro", help="default: %(default)s")
    parser.add_argument("--large", action="store_true", help="CLIP-L at 336 pixels with random weights")
    parser.add_argument("--layers", type=int, help="of --large, which all cost the same (default: all)")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    use_threads(1)
    open_it = (lambda: large_tower(args.layers)) if args.large else (lambda: open_tower(args.tower))
    result = measure(open_it, args.images, args.repeats, args.batch)
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    print(
        f"{result['tower']}: {result['layers']} layers, {result['tokens']} tokens; {result['images']} images in batches"
    )
    print(f"of {result['batch']}, {result['repeats']} pairs, processor time of one thread")
    for way, time_taken in result["milliseconds_per_image"].items():
        print(f"  {way:15} {time_taken:9.2f} ms per image")
    for name, title in (("ratio", "kept / streamed"), ("ratio_read_fast", "kept, read fast / streamed")):
        spread = result[name]
        print(f"{title}: {spread['median']:.2f} ({spread['lowest']:.2f} to {spread['highest']:.2f} over the pairs)")
    few, many = result["images_of_megabytes"]
    for way, (small, big) in result["megabytes"].items():
        print(f"  {way:15} {small:9.1f} MB with {few} images, {big:.1f} MB with {many}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
