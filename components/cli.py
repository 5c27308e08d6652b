"""The `cotam` command: finds the subcommand, runs it, and turns errors into one sentence and an exit code.

Exit codes: 0 it worked, 1 it did not (a sentence on stderr says why), 2 the command line was wrong, 130 interrupted.
Only the subcommand that was asked for is imported, so that `cotam --help` answers at once.
"""

import argparse
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from components.environment import be_quiet
from components.errors import CotamError

COMMANDS = {
    "encode": "compress an image, a folder of them, or a video",
    "decode": "turn .cotam and .cotamv files into images",
    "inspect": "say what a .cotam or .cotamv file holds",
    "ask": "ask an MLLM about an image or a video, coded or not",
    "shard": "pack a folder of images into shards to train on",
    "evaluate": "score an MLLM on what codecs left of the benchmarks",
    "analyze": "look inside a vision tower: information flow, attention distance, token similarity",
    "report": "print the table of a run and say where its page is",
    "bench": "measure the codec, the guidance, reading of shards, or memory",
    "services": "start and stop Prefect, MLflow and a worker; with PostgreSQL and an S3 store if asked",
    "register": "put trained codecs and adapters into the MLflow registry",
    "rollback": "give the alias champion back to the version that had it before",
    "lineage": "say which run, revision and data a registered model was made from",
    "step": "run one step of the pipeline (what dvc.yaml calls)",
}

_EXAMPLE = "example:\n  cotam encode photo.jpg -o photo.cotam --quality 4\n\ncotam COMMAND --help explains a command."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser of the whole command line, in which only `command` (if any) has its options."""
    parser = _Parser(
        prog="cotam",
        description="Image coding tailored to multimodal LLMs.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name == command:
            _module(name).add_parser(sub)
        else:
            sub.add_parser(name, help=summary)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `cotam` with these arguments (those of the process by default) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    be_quiet()
    command = arguments[0] if arguments and arguments[0] in COMMANDS else None
    try:
        args = build_parser(command).parse_args(arguments)
        code = _module(args.command).run(args)
        sys.stdout.flush()  # here, where a broken pipe can still be caught
        return code
    except CotamError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `cotam ... | head`: nobody reads on, which is no error
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}.")


def _module(command: str):
    return importlib.import_module(f"components.commands.{command}")


def _fail(sentence: str) -> int:
    print(f"cotam: {sentence}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
