"""`cotam decode`: a .cotam file, a folder of them, or a video -> image files that any viewer shows."""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from components.commands.options import add_codec_and_json, add_fast, add_folders, add_maximum_pixels
from components.errors import CotamError

if TYPE_CHECKING:
    import numpy as np

FORMATS = {
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
}
"""By suffix: Pillow's name of the format, and how it writes what was decoded without loss (JPEG: with little)."""


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "decode",
        help="turn .cotam and .cotamv files into images",
        description="Turn a .cotam file into an image. The name that -o gives decides on the format: "
        f"{', '.join(FORMATS)}. All but JPEG keep what was decoded exactly. Of a folder, all .cotam files in it and in "
        "the folders below are decoded; an image that is already there and not older than its file is left as it is, "
        "and an older one is only replaced with --overwrite, as it may be the original. Of a video, a .cotamv file, "
        "all frames are decoded into a folder, 0000.png and so on.",
        epilog="examples:\n"
        "  cotam decode photo.cotam -o photo.png\n"
        "  cotam decode streams/ -o pictures/ --format webp --workers 2\n"
        "  cotam decode clip.cotamv -o frames/\n"
        "  cat photo.cotam | cotam decode - -o - --format jpg > photo.jpg",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", type=Path, help="a .cotam file, a folder of them, a .cotamv file, or - (standard input)"
    )
    # No default: photo.png beside photo.cotam may well be the original.
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="IMAGE",
        required=True,
        help="what to write, or a folder, or - (standard output)",
    )
    add_maximum_pixels(parser, "refuse larger images")
    parser.add_argument(
        "--format",
        choices=[suffix[1:] for suffix in FORMATS],
        help="where -o names no file: what to write (default: png)",
    )
    add_fast(parser)
    add_folders(parser)
    add_codec_and_json(parser, "the codec that wrote the file")


def run(args: argparse.Namespace) -> int:
    """Decode and write."""
    from components.codec.container import MAXIMUM_PIXELS, read_stream, unpack
    from components.codec.video_container import is_video
    from components.commands import videos
    from components.commands.output import STANDARD, check_output, read_standard, say, write_output

    most = args.maximum_pixels or MAXIMUM_PIXELS
    if args.file.is_dir():
        return _run_folder(args, most)
    if args.file != STANDARD and args.file.exists() and is_video(args.file):
        return videos.decode(args)
    suffix = f".{args.format or 'png'}" if args.out == STANDARD else args.out.suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise CotamError(f"{args.out} names no image format that can be written; end its name in one of {known}.")
    if args.format and FORMATS[suffix] != FORMATS[f".{args.format}"]:
        raise CotamError(f"{args.out} is no name for the format {args.format}; leave out --format or end it in that.")
    check_output(args.out, args.file)
    if args.file == STANDARD:
        stream = read_standard()
        unpack(stream, most)
    else:
        stream = read_stream(args.file, most)  # before the slow imports: a mistyped name is answered at once

    decode = _decoder(args, most)
    try:
        content, report = decode(stream, suffix)
    except CotamError as error:
        raise error if args.file == STANDARD else CotamError(f"{args.file}: {error}") from None
    write_output(args.out, content)
    if args.json:
        say(args.out, json.dumps({"file": str(args.out), "source": str(args.file)} | report, indent=2))
    else:
        say(args.out, f"{args.out}: {report['width']} x {report['height']} pixels, quality {report['quality']}")
    return 0


def _run_folder(args: argparse.Namespace, most: int) -> int:
    """Decode every stream of a folder, of images with at most so many pixels."""
    from components.codec.container import read_stream
    from components.commands import folders
    from components.commands.output import write_output

    suffix = f".{args.format or 'png'}"
    out = folders.check_folders(args.file, args.out, FORMATS)
    plan = folders.plan(args.file, out, {".cotam"}, suffix)

    def start() -> folders.Convert:
        decode = _decoder(args, most)

        def convert(source: Path, target: Path) -> dict:
            if target.exists() and not args.overwrite:
                raise CotamError(f"{target} is older than {source}; is it the original? --overwrite replaces it.")
            content, report = decode(read_stream(source, most), suffix)
            write_output(target, content)
            return {"file": str(target), "source": str(source)} | report

        return convert

    waiting = [pair for pair in plan.pairs if args.overwrite or not folders.is_newer(pair)]
    if waiting:
        import components.codec.codec  # noqa: F401  (takes seconds: once, before there are several processes)
    results = folders.convert(waiting, start, args.workers, "Decoding")
    return folders.report(out, plan, results, args.json, lambda made: "")


def _decoder(args: argparse.Namespace, most: int) -> Callable[[bytes, str], tuple[bytes, dict]]:
    """Load the codec; the function that turns a stream into an image file (by suffix) and says what it held."""
    from components.codec.codec import Codec

    codec = Codec.from_pretrained(args.codec, fast=args.fast)

    def decode(stream: bytes, suffix: str) -> tuple[bytes, dict]:
        [decoded] = codec.decode([stream], most)
        height, width = decoded.size
        report = {"codec": codec.model_id, "width": width, "height": height, "quality": decoded.quality}
        return picture_file(decoded.image, suffix), report

    return decode


def picture_file(pixels: "np.ndarray", suffix: str) -> bytes:
    """Pixels, uint8 (H, W, 3), as the bytes of an image file whose name ends in one of `FORMATS`."""
    from PIL import Image

    kind, options = FORMATS[suffix]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()
