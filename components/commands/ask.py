"""`cotam ask`: ask an MLLM about an image or a video, as it sees it after decoding, or as it is; once, or in a chat."""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.commands.options import add_codec_and_json, add_dtype, add_frames, add_maximum_pixels
from components.errors import CotamError

if TYPE_CHECKING:
    from components.mllm import Kind, Mllm, Seen

MAX_NEW_TOKENS = 128
PROMPT = "> "


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "ask",
        help="ask an MLLM about an image or a video, coded or not",
        description="Decode a .cotam or .cotamv file (or open an image, a video, or a folder of frames) and ask a "
        "multimodal LLM about it. With --adapter the model also sees what the adapter reads in the decoded latent. "
        "Answers go to standard output; what the file cost in bits goes to standard error.",
        epilog='examples:\n  cotam ask photo.cotam "How many circles are there?" --mllm pretrained/mllm/micro-llava '
        "--adapter results/joint/elic-micro-llava\n"
        "  cotam ask clip.cotamv --interactive --mllm llava-hf/llava-onevision-qwen2-7b-ov-hf",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="a .cotam or .cotamv file, an image, a video, or a folder of frames")
    questions = parser.add_argument(
        "questions", nargs="+", default=[], metavar="QUESTION", help="one question, or several"
    )
    parser.add_argument(
        "--interactive",
        action=_Interactive,
        questions=questions,
        help="a chat: read one question a line until the input ends; the model remembers what was said",
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="with --interactive: every question stands for itself (the micro MLLMs were trained on single questions)",
    )
    parser.add_argument(
        "--mllm",
        metavar="PATH-OR-NAME",
        default="pretrained/mllm/micro-llava",
        help="a folder or a Hugging Face name such as llava-hf/llava-1.5-7b-hf (default: %(default)s)",
    )
    add_dtype(parser)
    parser.add_argument("--adapter", metavar="PATH", help="an adapter's folder, or models:/NAME@champion")
    add_frames(parser, "of a video that is not coded: how many frames the model sees, spread evenly")
    add_maximum_pixels(parser, "of a coded file: refuse more")
    add_codec_and_json(parser, "the codec that wrote the file", report="print questions and answers as JSON")


class _Interactive(argparse.Action):
    """A flag that makes the questions optional. (With nargs="*" they could not follow an option.)"""

    def __init__(self, questions: argparse.Action, **options: Any):
        super().__init__(nargs=0, default=False, **options)
        self.questions = questions

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, True)
        self.questions.required = False


@dataclass(frozen=True)
class Opened:
    """A file, opened but for its decoding.

    Attributes:
        kind: image or video.
        stream: of a coded one, its bytes.
        pictures: of one that is not coded, itself or its frames.
        cost: of a coded one, `bits`, `bpp` and sizes.
    """

    kind: "Kind"
    stream: bytes | None
    pictures: list[Any]
    cost: dict[str, Any]


def run(args: argparse.Namespace) -> int:
    """Answer every question."""
    if not all(question.strip() for question in args.questions):
        raise CotamError("The question is empty; ask something.")
    if args.forget and not args.interactive:
        raise CotamError("Without --interactive every question stands for itself anyway; leave out --forget.")
    opened = _open(args)
    if args.adapter and opened.stream is None:
        what = "a .cotam or .cotamv file"
        raise CotamError(f"An adapter reads a decoded latent and {args.file} is not {what}; leave out --adapter.")
    mllm, seen = _show(args, opened)
    if opened.cost:
        print(_cost(args, opened.cost), file=sys.stderr)
    asked: list[dict[str, str]] = []
    for exchange in _chat(args, mllm, seen) if args.interactive else _questions(args, mllm, seen):
        asked.append(exchange)
        if not args.json:
            typed = not args.interactive or sys.stdin.isatty()
            print(exchange["answer"] if typed else f"{PROMPT}{exchange['question']}\n{exchange['answer']}", flush=True)
    if args.json:
        report = {"file": str(args.file), "kind": str(opened.kind)}
        report |= {name: getattr(args, name) for name in ("mllm", "dtype", "adapter")}
        print(json.dumps(report | opened.cost | {"answers": asked}, indent=2))
    return 0


def _questions(args: argparse.Namespace, mllm: "Mllm", seen: "Seen") -> Iterator[dict[str, str]]:
    answers = mllm.answer([seen] * len(args.questions), args.questions, MAX_NEW_TOKENS)
    for question, answer in zip(args.questions, answers, strict=True):
        yield {"question": question, "answer": answer}


def _chat(args: argparse.Namespace, mllm: "Mllm", seen: "Seen") -> Iterator[dict[str, str]]:
    """One question after the other: those of the command line, then those of standard input."""
    said: tuple[str, ...] = ()
    for question in _lines(args):
        try:
            [answer] = mllm.answer([seen], [(*said, question)], MAX_NEW_TOKENS)
        except CotamError as error:  # this question's fault: the chat goes on
            print(error, file=sys.stderr)
            continue
        said = () if args.forget else (*said, question, answer)
        yield {"question": question, "answer": answer}


def _lines(args: argparse.Namespace) -> Iterator[str]:
    yield from args.questions
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    while True:
        try:
            # On standard error: a transcript that goes to a file holds what was said, not what invited it.
            print(PROMPT, end="", file=sys.stderr, flush=True)
            line = input()
        except EOFError:
            print(file=sys.stderr)
            return
        if line.strip():
            yield line.strip()


def _open(args: argparse.Namespace) -> Opened:
    """What the file is; before the slow imports, so that a mistyped name is answered at once."""
    from components.codec.container import MAGIC, MAXIMUM_PIXELS, read_stream
    from components.codec.video_container import MAGIC as VIDEO_MAGIC
    from components.codec.video_container import MAXIMUM_VIDEO_PIXELS, SUFFIX, read_video

    path, suffix = args.file, args.file.suffix.lower()
    start = b""
    if not path.is_dir():
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    coded = start in (MAGIC, VIDEO_MAGIC) or suffix in (".cotam", SUFFIX)
    if coded and args.frames:
        raise CotamError(f"{path} is coded: its frames were chosen by `cotam encode`; leave out --frames.")
    if args.maximum_pixels and not coded:
        raise CotamError(f"{path} is not coded; leave out --maximum-pixels.")
    if coded and (start == VIDEO_MAGIC or (start != MAGIC and suffix == SUFFIX)):
        return _opened("video", read_video(path, args.maximum_pixels or MAXIMUM_VIDEO_PIXELS), [])
    if coded:
        return _opened("image", read_stream(path, args.maximum_pixels or MAXIMUM_PIXELS), [])
    from components.data.images import open_image
    from components.data.video import FRAMES, VIDEO_SUFFIXES, open_video

    if path.is_dir() or suffix in VIDEO_SUFFIXES:
        return _opened("video", None, open_video(path, args.frames or FRAMES).frames)
    if args.frames:
        raise CotamError(f"{path} is no video; leave out --frames.")
    return _opened("image", None, [open_image(path)])


def _opened(kind: str, stream: bytes | None, pictures: list[Any]) -> Opened:
    from components.mllm.visual import Kind

    return Opened(Kind(kind), stream, pictures, {} if stream is None else _measure(kind, stream))


def _measure(kind: str, stream: bytes) -> dict[str, Any]:
    from components.codec.container import MAXIMUM_SIDE, unpack
    from components.commands.videos import measure

    if kind == "video":
        sizes = measure(stream)
    else:
        header, _ = unpack(stream, MAXIMUM_SIDE**2)  # its size has been checked
        sizes = {"width": header.width, "height": header.height, "frames": 1, "quality": header.quality}
    bits = 8 * len(stream)
    pixels = sizes["width"] * sizes["height"] * sizes["frames"]
    names = ("width", "height", "frames", "quality")
    return {name: sizes[name] for name in names} | {"bits": bits, "bpp": bits / pixels}


def _cost(args: argparse.Namespace, cost: dict[str, Any]) -> str:
    frames = f"{cost['frames']} frames of " if cost["frames"] > 1 else ""
    size = f"{frames}{cost['width']} x {cost['height']} pixels"
    adapter = f", seen with the adapter {args.adapter}" if args.adapter else ""
    return f"{args.file}: {cost['bits']} bits for {size}, {cost['bpp']:.4f} bits per pixel{adapter}"


def _show(args: argparse.Namespace, opened: Opened) -> tuple["Mllm", "Seen"]:
    """The MLLM, and what it sees of the file."""
    from components.mllm import load_mllm, see
    from components.mllm.showing import check_kind

    adapter, pictures = None, opened.pictures
    mllm = load_mllm(args.mllm, dtype=args.dtype)
    check_kind(mllm.family, opened.kind)
    if opened.stream is not None:
        pictures = _decode(args, opened)
        if args.adapter:
            from components.adapter import LatentAdapter
            from components.weights import resolve

            adapter = LatentAdapter.load(resolve(args.adapter))
    return mllm, see(mllm, opened.kind, [pictures], adapter)[0]


def _decode(args: argparse.Namespace, opened: Opened) -> list[Any]:
    from components.codec import Codec
    from components.mllm import Kind

    codec = Codec.from_pretrained(args.codec)
    most = {"maximum_pixels": args.maximum_pixels} if args.maximum_pixels else {}
    try:
        if opened.kind is Kind.VIDEO:
            return codec.decode_video(opened.stream, **most)
        return codec.decode([opened.stream], **most)
    except CotamError as error:
        raise CotamError(f"{args.file}: {error}") from None
