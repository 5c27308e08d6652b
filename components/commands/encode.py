"""`cotam encode`: any picture a person has -> a .cotam file."""

import argparse
import json
from pathlib import Path

QUALITIES = 10


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "encode",
        help="compress an image into a .cotam file",
        description="Compress an image into a .cotam file. The first layers of a CLIP say which parts of it deserve "
        "more bits and which deserve fewer (`guidance` in params.yaml); --plain spends them evenly.",
        epilog="example:\n  cotam encode photo.jpg -o photo.cotam --quality 4",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", type=Path, help="JPEG, PNG, WebP, TIFF, ...")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="what to write (default: the image's name, ending in .cotam)"
    )
    parser.add_argument(
        "--quality",
        type=_quality,
        default=4,
        metavar="Q",
        help="0 (smallest file) to 9 (best image) (default: %(default)s)",
    )
    parser.add_argument("--plain", action="store_true", help="the same quality everywhere, without a CLIP's guidance")
    parser.add_argument(
        "--codec",
        metavar="PATH-OR-NAME",
        default="pretrained/codec/elic-micro",
        help="a folder, or models:/NAME@champion (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")


def _quality(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= QUALITIES:
        raise argparse.ArgumentTypeError(f"there is no quality {text}; choose 0 (smallest file) to {QUALITIES - 1}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Encode, write, and say what it costs."""
    from components.commands.output import check_output, write_output
    from components.data.images import open_image

    out = args.out or args.image.with_suffix(".cotam")
    check_output(out, args.image)
    image = open_image(args.image)  # before the slow imports: a mistyped name is answered at once

    from components.codec import Codec

    codec = Codec.from_pretrained(args.codec)
    levels = None if args.plain else _guide()([image])
    [stream] = codec.encode([image], args.quality, levels)
    write_output(out, stream)

    report = {"file": str(out), "source": str(args.image), "plain": args.plain} | _measure(stream, levels)
    print(json.dumps(report, indent=2) if args.json else _sentence(report))
    return 0


def _guide():
    """The guidance of the settings."""
    from components import config
    from components.evaluation.coding import load_guide

    guidance = config.load().guidance
    return load_guide(guidance.tower, layers=guidance.layers, grid=guidance.grid, k=guidance.k)


def _measure(stream: bytes, levels) -> dict:
    from components.codec.container import unpack
    from components.codec.level_map import cost_bits

    header, payload = unpack(stream)
    pixels = header.width * header.height
    return {
        "codec": header.model_id,
        "width": header.width,
        "height": header.height,
        "quality": header.quality,
        "bytes": len(stream),
        "bpp": 8 * len(stream) / pixels,
        "bpp_without_header": 8 * len(payload) / pixels,
        "grid": header.grid,
        "map_bits": 0.0 if levels is None else cost_bits(levels[0]),
    }


def _sentence(report: dict) -> str:
    grid = report["grid"]
    guided = f"map {grid[0]} x {grid[1]} of {report['map_bits']:.0f} bits" if grid else "no map"
    return (
        f"{report['file']}: {report['bytes']} bytes, {report['bpp']:.4f} bits per pixel "
        f"({report['bpp_without_header']:.4f} without the header), quality {report['quality']}, {guided}"
    )
