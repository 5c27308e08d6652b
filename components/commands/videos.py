"""What encode, decode and inspect do with videos: a file or a folder of frames -> .cotamv -> a folder of frames."""

import argparse
import json
import re
from pathlib import Path

from components.errors import CotamError

FRAME_NAME = re.compile(r"\d{4,}\.[a-z]+")


def means_video(source: Path, out: Path | None) -> bool:
    """Whether `cotam encode` is given a video: by its name, or by the name of what is to be written."""
    from components.codec.video_container import SUFFIX
    from components.data.video import VIDEO_SUFFIXES

    if source.suffix.lower() in VIDEO_SUFFIXES and not source.is_dir():
        return True
    return out is not None and out.suffix.lower() == SUFFIX


def encode(args: argparse.Namespace) -> int:
    """Sample, encode, write, and say what it costs."""
    from components.codec.video_container import SUFFIX
    from components.commands.encode import settings_guide
    from components.commands.output import STANDARD, check_output, say, write_output
    from components.data.video import FRAMES, open_video

    if args.image == STANDARD:
        raise CotamError("A video cannot come from standard input, in which nobody can jump about; name its file.")
    out = args.out or args.image.with_suffix(SUFFIX)
    check_output(out, args.image)
    _check_levels(args.plain)
    clip = open_video(args.image, args.frames or FRAMES)  # before the slow imports: a mistyped name is answered at once

    from components.codec.codec import Codec

    codec = Codec.from_pretrained(args.codec, fast=args.fast)
    levels = None if args.plain else settings_guide()(clip.frames)
    stream = codec.encode_video(clip.frames, args.quality, levels, clip.times)
    write_output(out, stream)
    report = {"file": str(out), "source": str(args.image), "plain": args.plain} | measure(stream)
    report["total_frames"] = clip.total
    grid = report["grid"]
    sentence = (
        f"{out}: {report['frames']} of {clip.total} frames in {report['bytes']} bytes, {report['bpp']:.4f} bits per "
        f"pixel ({report['bpp_without_header']:.4f} without head and index), quality {args.quality}, "
        + (f"maps of {grid[0]} x {grid[1]}" if grid else "no maps")
    )
    say(out, json.dumps(report, indent=2) if args.json else sentence)
    return 0


def _check_levels(plain: bool) -> None:
    """Refuse maps of more levels: the head of a video has no room for how far from zero they go."""
    from components import config

    if not plain and config.load().guidance.levels > 3:
        raise CotamError("A video holds maps of three levels only; set guidance.levels to 3.")


def measure(stream: bytes) -> dict:
    """What a video weighs, in total and per pixel of all its frames."""
    from components.codec.container import MAXIMUM_SIDE
    from components.codec.video_container import MAXIMUM_FRAMES, unpack

    video, _ = unpack(stream, MAXIMUM_SIDE**2 * MAXIMUM_FRAMES)  # nothing of the frames' size is made here
    payload = 4 * sum(frame.words for frame in video.frames)
    return {
        "codec": video.header.model_id,
        "width": video.header.width,
        "height": video.header.height,
        "frames": len(video.frames),
        "quality": video.header.quality,
        "grid": video.header.grid,
        "milliseconds": video.times,
        "bytes": len(stream),
        "header_bytes": len(stream) - payload,
        "payload_bytes": payload,
        "frame_bytes": [4 * frame.words for frame in video.frames],
        "bpp": 8 * len(stream) / video.pixels,
        "bpp_without_header": 8 * payload / video.pixels,
    }


def describe(path: Path) -> dict:
    """Head and index of a file, for `cotam inspect`.

    Raises:
        CotamError: it cannot be read, or is no whole `.cotamv` file.
    """
    from components.codec.container import MAXIMUM_SIDE
    from components.codec.video_container import MAXIMUM_FRAMES, VERSION, read_video

    stream = read_video(path, MAXIMUM_SIDE**2 * MAXIMUM_FRAMES)
    return {"file": str(path), "version": VERSION} | measure(stream)


def lines(report: dict) -> str:
    """`describe` for people."""
    rows, columns = report["grid"] or (0, 0)
    times, sizes = report["milliseconds"], report["frame_bytes"]
    facts = {
        "version": report["version"],
        "codec": report["codec"],
        "size": f"{report['frames']} frames of {report['width']} x {report['height']} pixels",
        "time": f"{times[0] / 1000:.2f} to {times[-1] / 1000:.2f} seconds" if times[-1] else "not known",
        "quality": report["quality"],
        "map": f"{rows} x {columns} cells each" if rows else "none, the same quality everywhere",
        "bytes": f"{report['bytes']} ({report['header_bytes']} head and index, {report['payload_bytes']} payload; "
        f"a frame has {min(sizes)} to {max(sizes)})",
        "rate": f"{report['bpp']:.4f} bits per pixel ({report['bpp_without_header']:.4f} without head and index)",
    }
    return "\n".join([report["file"], *(f"  {name:<10}{value}" for name, value in facts.items())])


def decode(args: argparse.Namespace) -> int:
    """Write every frame into a folder, which is whole or absent."""
    from components.codec.video_container import MAXIMUM_VIDEO_PIXELS, read_video
    from components.commands.decode import FORMATS, picture_file
    from components.files import atomic_dir

    out, most = args.out, args.maximum_pixels or MAXIMUM_VIDEO_PIXELS
    suffix = f".{args.format or 'png'}"
    if out.suffix.lower() in FORMATS or (out.exists() and not out.is_dir()) or str(out) == "-":
        raise CotamError(f"{args.file} is a video: name a folder for its frames with -o, not {out}.")
    if out.exists() and (found := list(out.iterdir())):
        if not all(FRAME_NAME.fullmatch(path.name) for path in found):
            raise CotamError(f"{out} holds other files than frames; name a new folder with -o.")
        if not args.overwrite:
            raise CotamError(f"{out} holds frames already; name a new folder, or replace them all with --overwrite.")
    stream = read_video(args.file, most)

    from components.codec.codec import Codec
    from components.codec.video import decode_frames

    codec, report = Codec.from_pretrained(args.codec, fast=args.fast), measure(stream)
    digits = max(4, len(str(report["frames"] - 1)))  # so that names sort as the frames follow each other
    with atomic_dir(out) as folder:
        try:
            for number, decoded in enumerate(decode_frames(codec, stream, most)):
                (folder / f"{number:0{digits}d}{suffix}").write_bytes(picture_file(decoded.image, suffix))
        except CotamError as error:
            raise CotamError(f"{args.file}: {error}") from None
    names = ("codec", "width", "height", "frames", "quality", "milliseconds")
    if args.json:
        about = {"file": str(out), "source": str(args.file)}
        print(json.dumps(about | {name: report[name] for name in names}, indent=2))
    else:
        size = f"{report['width']} x {report['height']} pixels"
        print(f"{out}: {report['frames']} frames of {size}, quality {report['quality']}")
    return 0
