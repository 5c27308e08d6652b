"""Options that several commands share, described once."""

import argparse
from collections.abc import Callable

from components.cores import cores
from components.placing import DTYPES

CODEC = "pretrained/codec/elic-micro"


def add_codec_and_json(parser: argparse.ArgumentParser, codec: str, report: str = "report as JSON") -> None:
    """`--codec` and `--json`.

    Args:
        parser: of the command.
        codec: what its codec is, as the help says it.
        report: what --json does.
    """
    parser.add_argument("--codec", metavar="PATH-OR-NAME", default=CODEC, help=f"{codec} (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help=report)


def add_maximum_pixels(parser: argparse.ArgumentParser, refused: str) -> None:
    """`--maximum-pixels`, of commands that read coded files; `refused` says what is."""
    parser.add_argument(
        "--maximum-pixels",
        type=at_least(1),
        metavar="N",
        help=f"{refused} before any memory is taken (default: 100 million; of a video, all frames together: 400 "
        "million)",
    )


def add_frames(parser: argparse.ArgumentParser, of: str) -> None:
    """`--frames`, of commands that read videos which are not coded; `of` says of what, and how many frames."""
    parser.add_argument("--frames", type=at_least(1), metavar="N", help=f"{of} (default: 16)")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """`--dtype`, of commands that run an MLLM."""
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="in what numbers the MLLM's weights are held (default: as they are stored where there is a GPU, else "
        "float32)",
    )


def add_fast(parser: argparse.ArgumentParser) -> None:
    """`--fast`, of commands that run transforms."""
    said = "transforms that round more; for large codecs on processors with bfloat16"
    parser.add_argument("--fast", action="store_true", help=said)


def add_folders(parser: argparse.ArgumentParser) -> None:
    """`--workers` and `--overwrite`, of commands that go through a folder."""
    add_workers(parser, "of a folder: processes that share the files")
    parser.add_argument(
        "--overwrite", action="store_true", help="of a folder: write every file again, those that are up to date too"
    )


def add_workers(parser: argparse.ArgumentParser, what: str) -> None:
    """`--workers`; `what` says of what."""
    parser.add_argument(
        "--workers",
        type=at_least(1),
        default=cores(),
        metavar="N",
        help=f"{what} (default: one per processor, here %(default)s)",
    )


def at_least(least: int) -> Callable[[str], int]:
    """A whole number, `least` or more, for argparse."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    number.__name__ = "number"  # argparse: "invalid number value"
    return number
