"""Where the bits go with guidance, beside a file of about the same size without (paper, Fig. 16; C19 of the claims).

    cotam bench allocation [--json]
    python -m benchmarks.allocation --out docs/images --quality 3

On photographs that nothing was trained on, and on scenes of the benchmarks' style. `allocation.png` shows the first
photographs: the image, its map, and the bits of every place of the latent without and with it.
"""

import argparse
import json
import sys
from pathlib import Path

from components import config
from components.codec import Codec
from components.environment import be_quiet
from components.evaluation.allocation import Allocation, allocate, changes
from components.evaluation.coding import Guide, load_guide
from components.evaluation.pictures import Pictures, photographs
from components.files import atomic_file
from components.progress import track
from components.reporting.claims import allocation_claim
from components.reporting.pictures import heat, level_overlay
from components.reporting.style import pyplot
from components.scenes import render, sample_scene

SHOWN = 3
INK, FAINT = "#222222", "#666666"


def measure(codec: Codec, guide: Guide, pictures: Pictures, quality: int) -> dict[str, Allocation]:
    """Each picture's bits with a map around `quality`, and without at the quality whose file is nearest in size."""
    found = {}
    for name, picture in pictures.items():
        guided = codec.encode([picture], quality, guide([picture]))[0]
        plain = {q: codec.encode([picture], q)[0] for q in range(codec.config.qualities)}
        found[name] = allocate(codec, picture, guided, plain, quality)
    return found


def draw(target: Path, pictures: Pictures, found: dict[str, Allocation]) -> None:
    """Write the pictures, their maps and their bits, a row each."""
    plt = pyplot("allocation", INK, FAINT)
    names = list(found)[:SHOWN]
    figure, axes = plt.subplots(len(names), 4, figsize=(11, 2.6 * len(names)), squeeze=False, layout="constrained")
    for row, name in zip(axes, names, strict=True):
        one, picture = found[name], pictures[name]
        top = max(one.plain_hw.max(), one.guided_hw.max())
        tiles = (
            (name, picture),
            ("its map; orange raises, blue lowers", level_overlay(picture, one.levels_hw)),
            (f"bits without it, {one.plain_bytes:,} bytes", heat(one.plain_hw, top, picture.shape[:2])),
            (f"bits with it, {one.guided_bytes:,} bytes", heat(one.guided_hw, top, picture.shape[:2])),
        )
        for axis, (title, image) in zip(row, tiles, strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(title, loc="left", fontsize=8.5, color=FAINT)
    with atomic_file(target) as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    plt.close(figure)


def main() -> int:
    """Measure, draw and report."""
    settings = config.load()
    weights = settings.codec[settings.codecs[0]].weights
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", metavar="PATH-OR-NAME", default=weights, help="(default: params.yaml's first)")
    parser.add_argument("--quality", type=int, default=3, help="the map's base quality (default: 3)")
    parser.add_argument("--scenes", type=int, default=32, help="scenes to code (default: 32)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write allocation.png here")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    guidance = settings.guidance
    guide = load_guide(guidance.tower, layers=guidance.layers, grid=guidance.grid, k=guidance.k)
    codec = Codec.from_pretrained(args.codec)
    sets = {
        "photographs": photographs(),
        "scenes": {str(n): render(sample_scene(n, "validation", "bench")) for n in range(args.scenes)},
    }
    found = {name: measure(codec, guide, sets[name], args.quality) for name in track(sets, "coding")}
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        draw(args.out / "allocation.png", sets["photographs"], found["photographs"])
    result = {}
    for name, allocations in found.items():
        change = changes(allocations.values())
        sizes = [sum(getattr(one, key) for one in allocations.values()) for key in ("guided_bytes", "plain_bytes")]
        result[name] = change | {"size": 100 * (sizes[0] / sizes[1] - 1)}
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    for name, change in result.items():
        claim = allocation_claim(change)
        size = f"files {change['size']:+.1f} % in size"
        print(f"{name}, quality {args.quality}, {size}: C19 {claim.verdict}. {claim.here}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
