"""`cotam inspect`: what .cotam and .cotamv files say of themselves; nothing is decoded, nor torch imported."""

import argparse
import json
import sys
from pathlib import Path

from components.errors import CotamError


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "inspect",
        help="say what a .cotam or .cotamv file holds",
        description="Read the headers of .cotam and .cotamv files. Nothing is decoded, so the checksum is shown, not "
        "verified; cotam decode verifies it.",
        epilog="example:\n  cotam inspect photo.cotam",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a .cotam or .cotamv file, or several")
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object per file")


def run(args: argparse.Namespace) -> int:
    """Describe every file that can be read; name those that cannot, and then fail."""
    from components.commands import videos

    found, failed = [], False
    for path in args.files:
        try:
            found.append(describe(path))
        except CotamError as error:
            failed = True
            print(f"cotam: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps(found, indent=2))
    elif found:
        print("\n\n".join(videos.lines(report) if "frames" in report else _lines(report) for report in found))
    return int(failed)


def describe(path: Path) -> dict:
    """The header of a file and its sizes.

    Raises:
        CotamError: it cannot be read, or is no whole `.cotam` or `.cotamv` file.
    """
    from components.codec.container import MAXIMUM_SIDE, VERSION, read_stream, unpack
    from components.codec.video_container import is_video
    from components.commands import videos

    if path.is_file() and is_video(path):
        return videos.describe(path)
    stream = read_stream(path, MAXIMUM_SIDE**2)  # nothing of the image's size is made here
    header, payload = unpack(stream, MAXIMUM_SIDE**2)
    pixels = header.width * header.height
    return {
        "file": str(path),
        "version": VERSION + header.steps - 1,
        "codec": header.model_id,
        "width": header.width,
        "height": header.height,
        "quality": header.quality,
        "grid": header.grid,
        "bytes": len(stream),
        "header_bytes": len(stream) - len(payload),
        "payload_bytes": len(payload),
        "bpp": 8 * len(stream) / pixels,
        "bpp_without_header": 8 * len(payload) / pixels,
        "checksum": f"{header.check:08x}",
    }


def _lines(report: dict) -> str:
    rows, columns = report["grid"] or (0, 0)
    facts = {
        "version": report["version"],
        "codec": report["codec"],
        "size": f"{report['width']} x {report['height']} pixels",
        "quality": report["quality"],
        "map": f"{rows} x {columns} cells" if rows else "none, the same quality everywhere",
        "bytes": f"{report['bytes']} ({report['header_bytes']} header, {report['payload_bytes']} payload)",
        "rate": f"{report['bpp']:.4f} bits per pixel ({report['bpp_without_header']:.4f} without the header)",
        "checksum": report["checksum"],
    }
    return "\n".join([report["file"], *(f"  {name:<10}{value}" for name, value in facts.items())])
