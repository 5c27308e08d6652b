"""`cotam bench`: run one of the measurements in benchmarks/."""

import argparse
import os
import subprocess
import sys

from components.errors import CotamError
from components.paths import ROOT

BENCHMARKS = {
    "analysis": "attention looked at as it is computed, against all of it kept: time and memory",
    "coder": "entropy coders on the codec's own symbols: CompressAI's and constriction",
    "codec": "time of CoTAM against the codec alone, rate of the codec against JPEG and WebP",
    "speed": "time of full-width ELIC against CompressAI's, stage by stage, cold and warm",
    "grid": "the whole grid of rates and MLLMs, every image coded once, against each evaluated afresh",
    "guidance": "what guidance and adapter are each worth, beside maps in random order and perfect ones",
    "exactness": "streams written in one way and read in another, and what exact arithmetic costs in rate",
    "data": "images per second out of shards on disk and on S3, against webdataset and what a training takes",
    "overhead": "seconds of the last finished run in its stages and around them, while `make up` runs",
    "psnr": "rate and PSNR of ELIC and DCAE, guided and not, beside JPEG, WebP and AVIF",
    "allocation": "where in an image the bits go with guidance, at equal size",
    "reuse": "images per second of adapter training with decoded latents and features kept, and without",
    "map": "bits of the guidance map on scenes and photographs",
    "fuzz": "what damaged streams do to the decoder: a clear error or the right latent, in bounded memory",
    "memory": "memory and time of an image of 8192 x 8192 pixels",
    "mllm_memory": "GPU memory that the paper's MLLMs need, by precision, computed from their shapes",
}


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    listed = "\n".join(f"  {name:<13}{summary}" for name, summary in BENCHMARKS.items())
    parser = sub.add_parser(
        "bench",
        help="measure the codec, its streams, the guidance, or reading of shards",
        description="Measure this machine. Pairs of runs are interleaved; ratios come with their spread.",
        epilog=f"measurements:\n{listed}\n\nexample:\n  cotam bench data --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="WHAT", choices=sorted(BENCHMARKS), help="one of those below")
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(args: argparse.Namespace) -> int:
    """Run benchmarks/NAME.py of the checkout."""
    script = ROOT / "benchmarks" / f"{args.name}.py"
    if not script.is_file():
        raise CotamError(f"{script} is not there; run cotam from a checkout of the project.")
    search = os.pathsep.join(path for path in (str(ROOT), os.environ.get("PYTHONPATH")) if path)
    command = [sys.executable, str(script), *(["--json"] if args.json else [])]
    return subprocess.call(command, env=os.environ | {"PYTHONPATH": search})
