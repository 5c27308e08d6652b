"""Memory and time of one large image: `cotam bench memory`.

Encodes and decodes a made-up photograph of 8192 x 8192 pixels, each in a process of its own, and prints what the kernel
says was the most memory that the process held.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from components.environment import be_quiet, use_threads

SIDE = 8192
QUALITY = 4
_UNIT = 1024 if sys.platform.startswith("linux") else 1  # of ru_maxrss, in bytes


def picture(width: int, height: int) -> np.ndarray:
    """Waves of all lengths and some noise, uint8 (height, width, 3), made row by row to need little memory itself."""
    rng = np.random.default_rng(0)
    image = np.empty((height, width, 3), np.uint8)
    x = np.arange(width, dtype=np.float32)
    for row in range(height):
        waves = sum(np.sin(x / length + row / (length + 3)) / k for k, length in enumerate((300, 70, 17, 6), 1))
        noise = rng.normal(0, 4, (width, 3)).astype(np.float32)
        image[row] = np.clip(128 + 50 * waves[:, None] + noise, 0, 255)
    return image


def _encode(codec: str, width: int, height: int, file: Path) -> dict:
    from components.codec.codec import Codec

    coder, image = Codec.from_pretrained(codec), picture(width, height)
    before, start = _peak(), time.perf_counter()
    [stream] = coder.encode([image], QUALITY)
    found = {"seconds": time.perf_counter() - start, "peak_mib": _peak(), "before_mib": before, "bytes": len(stream)}
    file.write_bytes(stream)
    return found


def _decode(codec: str, width: int, height: int, file: Path) -> dict:
    from components.codec.codec import Codec

    coder, stream = Codec.from_pretrained(codec), file.read_bytes()
    before, start = _peak(), time.perf_counter()
    [decoded] = coder.decode([stream])
    found = {"seconds": time.perf_counter() - start, "peak_mib": _peak(), "before_mib": before}
    image = picture(width, height)
    errors = [np.square(a.astype(np.float32) - b).mean() for a, b in zip(image, decoded.image, strict=True)]
    return found | {"psnr": float(10 * np.log10(255**2 / np.mean(errors)))}


def _peak() -> int:
    """The most memory that this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT >> 20


def measure(codec: str, width: int, height: int, threads: int) -> dict:
    """What encoding and decoding took, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for way in ("encode", "decode"):
            options = ["--codec", codec, "--width", str(width), "--height", str(height), "--threads", str(threads)]
            command = [sys.executable, __file__, *options, "--way", way, "--file", f"{folder}/large.cotam"]
            found[way] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {"codec": codec, "width": width, "height": height, "quality": QUALITY, "threads": threads} | found


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", metavar="PATH-OR-NAME", default="pretrained/codec/elic-micro")
    parser.add_argument("--width", type=int, default=SIDE)
    parser.add_argument("--height", type=int, default=SIDE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("--way", choices=["encode", "decode"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    be_quiet()
    use_threads(args.threads)
    if args.way:
        found = {"encode": _encode, "decode": _decode}[args.way](args.codec, args.width, args.height, args.file)
        print(json.dumps(found))
        return 0
    result = measure(args.codec, args.width, args.height, args.threads)
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    print(f"{args.width} x {args.height} pixels, quality {QUALITY}, {args.threads} threads, codec {args.codec}")
    for way in ("encode", "decode"):
        found = result[way]
        print(
            f"{way}: {found['seconds']:.1f} s, at most {found['peak_mib']} MiB in memory "
            f"({found['before_mib']} MiB before it began)"
        )
    print(f"{result['encode']['bytes']} bytes, PSNR {result['decode']['psnr']:.2f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
