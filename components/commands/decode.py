"""`cotam decode`: a .cotam file -> an image file that any viewer shows."""

import argparse
import io
import json
from pathlib import Path

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
        help="turn a .cotam file into an image",
        description="Turn a .cotam file into an image. The name that -o gives decides on the format: "
        f"{', '.join(FORMATS)}. All but JPEG keep what was decoded exactly.",
        epilog="example:\n  cotam decode photo.cotam -o photo.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="a .cotam file")
    # No default: photo.png beside photo.cotam may well be the original.
    parser.add_argument("-o", "--out", type=Path, metavar="IMAGE", required=True, help="what to write")
    parser.add_argument(
        "--codec",
        metavar="PATH-OR-NAME",
        default="pretrained/codec/elic-micro",
        help="the codec that wrote the file (default: %(default)s)",
    )
    parser.add_argument(
        "--maximum-pixels",
        type=_count,
        metavar="N",
        help="refuse larger images before any memory is taken (default: 100 million)",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of pixels; give a whole number from 1 on")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Decode and write."""
    from components.codec.container import MAXIMUM_PIXELS, read_stream
    from components.commands.output import check_output, write_output
    from components.errors import CotamError

    if args.out.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise CotamError(f"{args.out} names no image format that can be written; end its name in one of {known}.")
    check_output(args.out, args.file)
    most = args.maximum_pixels or MAXIMUM_PIXELS
    stream = read_stream(args.file, most)  # before the slow imports: a mistyped name is answered at once

    from PIL import Image

    from components.codec import Codec

    codec = Codec.from_pretrained(args.codec)
    try:
        [decoded] = codec.decode([stream], most)
    except CotamError as error:
        raise CotamError(f"{args.file}: {error}") from None
    kind, options = FORMATS[args.out.suffix.lower()]
    file = io.BytesIO()
    Image.fromarray(decoded.image).save(file, kind, **options)
    write_output(args.out, file.getvalue())

    height, width = decoded.size
    if args.json:
        report = {"file": str(args.out), "source": str(args.file), "codec": codec.model_id}
        print(json.dumps(report | {"width": width, "height": height, "quality": decoded.quality}, indent=2))
    else:
        print(f"{args.out}: {width} x {height} pixels, quality {decoded.quality}")
    return 0
