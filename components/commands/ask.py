"""`cotam ask`: ask an MLLM about a .cotam file, as it sees it after decoding, or about an image."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from components.commands.options import add_codec_and_json

if TYPE_CHECKING:
    from components.mllm import Mllm, View

MAX_NEW_TOKENS = 128


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "ask",
        help="ask an MLLM about a .cotam file or an image",
        description="Decode a .cotam file (or open an image) and ask a multimodal LLM about it. With --adapter the "
        "model also sees what the adapter reads in the decoded latent.",
        epilog='example:\n  cotam ask photo.cotam "How many circles are there?" --mllm pretrained/mllm/micro-llava '
        "--adapter results/joint/elic-micro-llava",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="a .cotam file, or an image")
    parser.add_argument("questions", nargs="+", metavar="QUESTION", help="one question, or several")
    parser.add_argument(
        "--mllm",
        metavar="PATH-OR-NAME",
        default="pretrained/mllm/micro-llava",
        help="a folder or a Hugging Face name such as llava-hf/llava-1.5-7b-hf (default: %(default)s)",
    )
    parser.add_argument("--adapter", metavar="PATH", help="an adapter's folder, or models:/NAME@champion")
    add_codec_and_json(parser, "the codec that wrote the file", report="print questions and answers as JSON")


def run(args: argparse.Namespace) -> int:
    """Answer every question."""
    from components.errors import CotamError

    if not all(question.strip() for question in args.questions):
        raise CotamError("The question is empty; ask something.")
    is_stream = _is_stream(args.file)
    if args.adapter and not is_stream:
        raise CotamError(f"An adapter reads a decoded latent and {args.file} is no .cotam file; leave out --adapter.")
    mllm, view = (_show_stream if is_stream else _show_image)(args)
    answers = mllm.answer([view] * len(args.questions), args.questions, MAX_NEW_TOKENS)
    if args.json:
        asked = [{"question": q, "answer": a} for q, a in zip(args.questions, answers, strict=True)]
        report = {"file": str(args.file), "mllm": args.mllm, "adapter": args.adapter, "answers": asked}
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(answers))
    return 0


def _is_stream(path: Path) -> bool:
    from components.codec.container import MAGIC

    with path.open("rb") as file:  # before the slow imports: a mistyped name is answered at once
        return path.suffix.lower() == ".cotam" or file.read(len(MAGIC)) == MAGIC


def _show_image(args: argparse.Namespace) -> tuple["Mllm", "View"]:
    from components.data.images import open_image
    from components.mllm import load_mllm

    image = open_image(args.file)
    mllm = load_mllm(args.mllm)
    return mllm, mllm.views([image])[0]


def _show_stream(args: argparse.Namespace) -> tuple["Mllm", "View"]:
    from components.adapter import LatentAdapter
    from components.codec import Codec
    from components.mllm import load_mllm
    from components.weights import resolve

    decoded = Codec.from_pretrained(args.codec).decode([args.file.read_bytes()])
    mllm = load_mllm(args.mllm)
    if not args.adapter:
        return mllm, mllm.views([decoded[0].image])[0]
    adapter = LatentAdapter.load(resolve(args.adapter))
    return mllm, mllm.decoded_views(decoded, adapter)[0]
