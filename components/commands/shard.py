"""`cotam shard`: pack images (a folder, WebDataset tars, parquet, S3) into shards to train on, and have DVC track them.

With --link, shards that lie on S3 stay there, and the folder says where.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from components.commands.options import at_least
from components.errors import CotamError
from components.paths import ROOT

_RULES = {"seed": 0, "shard_images": 500, "minimum_side": 32, "maximum_pixels": 100_000_000}


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "shard",
        help="pack a folder of images into shards to train on",
        description="Pack a folder of images, with all folders below it, into shards to train on. Damaged, tiny and "
        "huge images are skipped and named. A run that was interrupted goes on when it is started again.",
        epilog="examples:\n"
        "  cotam shard ~/photos -o data/my-photos\n"
        "  cotam shard s3://bucket/photos -o data/my-photos    (AWS_ENDPOINT_URL names another S3 service)\n"
        "  cotam shard s3://bucket/cc3m --link -o data/cc3m    (train on shards that were copied to S3, from there)\n"
        "  cotam shard ~/cc3m -o data/cc3m --part 3/8          (1/8 to 8/8 on eight machines, then --parts 8)\n\n"
        "then train on it: set `data.source: data/my-photos` in params.yaml and run `dvc repro`",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder of images, WebDataset tars or parquet files of images, or s3://BUCKET/PREFIX",
    )
    parser.add_argument(
        "--link", action="store_true", help="SOURCE holds shards: check them, and leave them there to be trained on"
    )
    parser.add_argument("-o", "--out", metavar="FOLDER", required=True, help="the folder to write")
    parser.add_argument("--seed", type=at_least(0), help=f"of the order of the images (default: {_RULES['seed']})")
    parser.add_argument(
        "--shard-images",
        type=at_least(1),
        metavar="N",
        help=f"images per tar file (default: {_RULES['shard_images']})",
    )
    parser.add_argument(
        "--minimum-side",
        type=at_least(1),
        metavar="PIXELS",
        help=f"skip smaller images (default: {_RULES['minimum_side']})",
    )
    parser.add_argument(
        "--maximum-pixels",
        type=at_least(1),
        metavar="N",
        help=f"skip larger ones (default: {_RULES['maximum_pixels']})",
    )
    several = parser.add_mutually_exclusive_group()
    several.add_argument(
        "--part",
        type=_part,
        metavar="K/N",
        help="make the K-th of N parts only, on one of several machines that share FOLDER's disk",
    )
    several.add_argument(
        "--parts",
        type=at_least(1),
        metavar="N",
        help="make what is missing of N parts, and FOLDER of all of them",
    )
    parser.add_argument("--no-track", action="store_true", help="do not track the shards with DVC")
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(args: argparse.Namespace) -> int:
    """Make the shards or the link, track them, and say what was skipped and why."""
    rules = {name: getattr(args, name) for name in _RULES if getattr(args, name) is not None}
    if args.link:
        from components.data.linking import link_shards

        if given := [*rules, *(name for name in ("part", "parts") if getattr(args, name))]:
            option = given[0].replace("_", "-")
            raise CotamError(f"--{option} says how to make shards, which --link does not do.")
        manifest = link_shards(args.source, args.out)
    elif args.part or args.parts:
        from components.data.parts import shard_parts

        part, parts = args.part or (None, args.parts)
        manifest = shard_parts(args.source, args.out, parts, part, **(_RULES | rules))
    else:
        from components.data.sharding import shard_folder

        manifest = shard_folder(args.source, args.out, **(_RULES | rules))
    tracked = None if args.no_track or args.part else _track(None if args.link else args.source, Path(args.out))
    if args.json:
        keys = ("source", "images", "bytes", "skipped", "ignored")
        report = {"folder": args.out, "shards": len(manifest["shards"]), "tracked": tracked}
        if args.part:
            from components.data.parts import part_folder
            from components.data.sharding import Share

            part, parts = args.part
            report |= {"folder": str(part_folder(Path(args.out), Share(part, parts))), "part": part, "parts": parts}
        print(json.dumps(report | {key: manifest[key] for key in keys}, indent=2))
    else:
        _print(args, manifest, tracked)
    return 0


def _part(text: str) -> tuple[int, int]:
    """`3/8`, for argparse."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text} is no part; give K/N, from 1/N to N/N")
    return int(found[1]), int(found[2])


def _track(source: str | None, out: Path) -> list[str] | None:
    """Have DVC track the shards (and where they came from); None outside a DVC checkout."""
    folder = out.resolve()
    if not any((parent / ".dvc").is_dir() for parent in folder.parents):
        return None
    command = [sys.executable, "-m", "flows.track_data", str(folder)]
    if source and source.startswith("s3://"):
        command += ["--source", source]
    search = os.pathsep.join(path for path in (str(ROOT), os.environ.get("PYTHONPATH")) if path)
    # A process of its own, as nothing under components/ imports DVC.
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": search}, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise CotamError(f"The shards are in {out}, but DVC does not track them: {reason}")
    return done.stdout.split("\n")[:-1]


def _print(args: argparse.Namespace, manifest: dict, tracked: list[str] | None) -> None:
    shards, out = len(manifest["shards"]), args.out
    what = f"{out}, part {args.part[0]} of {args.part[1]}" if args.part else out
    print(f"{what}: {manifest['images']} images, {shards} shard{'s' * (shards != 1)}, {manifest['bytes'] / 1e6:.1f} MB")
    skipped = manifest["skipped"]
    for skip in skipped[:10]:
        print(f"skipped {skip['name']}: it {skip['reason']}")
    if len(skipped) > 10:
        print(f"skipped {len(skipped) - 10} more; manifest.json names them all")
    if manifest["ignored"]:
        others = ", ".join(f"{count} {suffix}" for suffix, count in manifest["ignored"].items())
        print(f"left out, not images by name: {others}")
    if tracked is not None:
        print(f"tracked with DVC: commit {' and '.join(tracked)}")
    if args.part:
        print(f"When all parts are there: `cotam shard {args.source} -o {out} --parts {args.part[1]}`, same options.")
    else:
        print(f"To train on it, set data.source to {out} in params.yaml and run `dvc repro`.")
