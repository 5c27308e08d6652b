"""`cotam encode`: any picture a person has, a folder of them, or a video -> .cotam and .cotamv files."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from components.commands.options import add_codec_and_json, add_fast, add_folders, add_frames
from components.errors import CotamError

if TYPE_CHECKING:
    from PIL.Image import Image

    from components.commands.folders import Pair

QUALITIES = 10


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "encode",
        help="compress an image, a folder of them, or a video",
        description="Compress an image into a .cotam file. The first layers of a CLIP say which parts of it deserve "
        "more bits and which deserve fewer (`guidance` in params.yaml); --plain spends them evenly. Of a folder, all "
        "images in it and in the folders below are compressed; a file that is already there, not older than its image "
        "and of the same codec and quality, is left as it is. Of a video, or of a folder whose images are its frames "
        "(when -o names a .cotamv file), frames spread evenly are compressed into one .cotamv file.",
        epilog="examples:\n"
        "  cotam encode photo.jpg -o photo.cotam --quality 4\n"
        "  cotam encode photos/ -o streams/ --workers 2\n"
        "  cotam encode clip.mp4 -o clip.cotamv --frames 16 --quality 3\n"
        "  cat photo.jpg | cotam encode - -o - > photo.cotam",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "image", type=Path, help="JPEG, PNG, WebP, TIFF, ...; a folder of them; a video; or - (standard input)"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="what to write: a file (default: the image's name, ending in .cotam), a folder, or - (standard output)",
    )
    parser.add_argument(
        "--quality",
        type=_quality,
        default=4,
        metavar="Q",
        help="0 (smallest file) to 9 (best image) (default: %(default)s)",
    )
    add_frames(parser, "of a video: how many frames, spread evenly; a shorter one gives all")
    parser.add_argument("--plain", action="store_true", help="the same quality everywhere, without a CLIP's guidance")
    add_fast(parser)
    add_folders(parser)
    add_codec_and_json(parser, "a folder, or models:/NAME@champion")


def _quality(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= QUALITIES:
        raise argparse.ArgumentTypeError(f"there is no quality {text}; choose 0 (smallest file) to {QUALITIES - 1}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Encode, write, and say what it costs."""
    from components.commands import videos
    from components.commands.output import STANDARD, check_output, read_standard, say, write_output
    from components.data.images import open_image

    if videos.means_video(args.image, args.out):
        return videos.encode(args)
    if args.frames:
        raise CotamError(f"{args.image} is no video; leave out --frames, or name a .cotamv file with -o.")
    if args.image.is_dir():
        return _run_folder(args)
    if args.out is None and args.image == STANDARD:
        raise CotamError("There is no name to take from standard input; name the file to write with -o.")
    out = args.out or args.image.with_suffix(".cotam")
    check_output(out, args.image)
    # Before the slow imports: a mistyped name is answered at once.
    image = open_image(read_standard() if args.image == STANDARD else args.image)

    stream, report = _encoder(args)(image)
    write_output(out, stream)
    report = {"file": str(out), "source": str(args.image), "plain": args.plain} | report
    say(out, json.dumps(report, indent=2) if args.json else _sentence(report))
    return 0


def _run_folder(args: argparse.Namespace) -> int:
    """Encode every image of a folder."""
    from components.commands import folders
    from components.commands.output import write_output
    from components.data.images import open_image
    from components.data.sources import IMAGE_SUFFIXES

    out = folders.check_folders(args.image, args.out, {".cotam"})
    plan = folders.plan(args.image, out, IMAGE_SUFFIXES, ".cotam")

    def start() -> folders.Convert:
        encode = _encoder(args)

        def convert(source: Path, target: Path) -> dict:
            stream, report = encode(open_image(source))
            write_output(target, stream)
            return {"file": str(target), "source": str(source), "plain": args.plain} | report

        return convert

    waiting = plan.pairs if args.overwrite else _outdated(plan.pairs, args)
    if waiting:
        _import(args.plain)
    results = folders.convert(waiting, start, args.workers, "Encoding")
    return folders.report(out, plan, results, args.json, _summary)


def _import(plain: bool) -> None:
    """What takes seconds to import: once, before there are several processes."""
    import components.codec.codec

    if not plain:
        import components.codec.guidance
        import components.vision.tower  # noqa: F401


def _outdated(pairs: "list[Pair]", args: argparse.Namespace) -> "list[Pair]":
    """Those whose stream is missing, older than the image, or says that it was made by other options."""
    from components import config
    from components.codec.container import read_stream, unpack
    from components.codec.folder import model_id
    from components.commands.folders import is_newer
    from components.weights import resolve

    if Path(args.codec).is_file():  # a published checkpoint, which has its name only once it is loaded
        return pairs
    codec = model_id(resolve(args.codec))
    plain = args.plain or config.load().guidance.levels == 1

    def current(pair: "Pair") -> bool:
        if not is_newer(pair):
            return False
        try:
            header, _ = unpack(read_stream(pair.out))
        except CotamError:
            return False
        return (header.model_id, header.quality, header.grid is None) == (codec, args.quality, plain)

    return [pair for pair in pairs if not current(pair)]


def _encoder(args: argparse.Namespace) -> "Callable[[Image], tuple[bytes, dict]]":
    """Load the codec, and the tower unless coding is plain; the function that gives an image's stream and its costs."""
    from components.codec.codec import Codec

    codec = Codec.from_pretrained(args.codec, fast=args.fast)
    guide = None if args.plain else settings_guide()

    def encode(image: "Image") -> tuple[bytes, dict]:
        levels = None if guide is None else guide([image])
        [stream] = codec.encode([image], args.quality, levels)
        return stream, _measure(stream, levels)

    return encode


def settings_guide():
    """The guidance of the settings."""
    from components import config
    from components.evaluation.coding import load_guide

    guidance = config.load().guidance
    return load_guide(**guidance.model_dump())


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
        "map_bits": 0.0 if header.grid is None else cost_bits(levels[0]),
    }


def _sentence(report: dict) -> str:
    grid = report["grid"]
    guided = f"map {grid[0]} x {grid[1]} of {report['map_bits']:.0f} bits" if grid else "no map"
    return (
        f"{report['file']}: {report['bytes']} bytes, {report['bpp']:.4f} bits per pixel "
        f"({report['bpp_without_header']:.4f} without the header), quality {report['quality']}, {guided}"
    )


def _summary(made: list[dict]) -> str:
    total, pixels = sum(one["bytes"] for one in made), sum(one["width"] * one["height"] for one in made)
    return f" with {total} bytes, {8 * total / pixels:.4f} bits per pixel"
