"""Claim C13: images of several tiles guided by the whole, by their tiles, or by both (paper, section 3.4 and Fig. 11b).

    python -m benchmarks.scope --adapter results/joint/elic-micro-internvl/adapter [--json]

Scenes of `--detail` times the ordinary side, which the MLLM cuts into tiles and the codec codes whole. The codec alone
is the anchor; beside it stands the codec guided in each of the three scopes, with the MLLM's adapter where one is
given. Images and questions are of a seed other than params.yaml's. What is printed last is the claim itself: the
BD-rate of hierarchical guidance held against each of the others.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.guidance import SEED
from benchmarks.ways import ADAPTED, PLAIN, Models, begun, code_and_ask, print_json, print_ways, rate_of, shares
from components import config
from components.evaluation.coding import load_guide
from components.evaluation.pictures import benchmark_pictures
from components.evaluation.step_benchmarks import write_benchmarks
from components.paths import PRETRAINED

SCOPES = ("hierarchical", "local", "global")


def measure(images: int, detail: int, mllm: Path, adapter: Path | None, settings: config.Settings) -> dict:
    """Levels of the maps, and per way its rates, scores and BD-rate; and hierarchical guidance against the others.

    Args:
        images: how many to draw.
        detail: of the scenes, whose side is so many times the ordinary one.
        mllm: a folder.
        adapter: of this MLLM, or None: decoded pixels alone.
        settings: codec, guidance and qualities.
    """
    end = ADAPTED if adapter else ""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_benchmarks(folder, images, "bench", SEED, settings.scenes.size * detail, detail)
        pictures = benchmark_pictures(folder)
        guidance = settings.guidance.model_dump()
        maps = {PLAIN: None}
        for scope in SCOPES:
            maps[scope] = load_guide(**guidance | {"scope": scope})(list(pictures.values()))
        models = Models(settings.codec[settings.codecs[0]].weights, mllm, adapter)
        ways = [PLAIN, *(scope + end for scope in SCOPES)]
        asked = code_and_ask(folder, pictures, maps, ways, models, settings)
    found = {"images": images, "detail": detail, "mllm": str(mllm), "adapter": str(adapter) if adapter else None}
    claim = {scope: asked.against(scope + end, settings)[SCOPES[0] + end] for scope in SCOPES[1:]}
    return found | {"levels": shares(maps), "ways": asked.against(PLAIN, settings), "hierarchical_against": claim}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--detail", type=int, default=2)
    parser.add_argument("--mllm", type=Path, default=PRETRAINED / "mllm/micro-internvl")
    parser.add_argument("--adapter", type=Path, help="a folder (default: decoded pixels alone)")
    args, settings = begun(parser)
    result = measure(args.images, args.detail, args.mllm, args.adapter, settings)
    if args.json:
        print_json(result)
        return 0
    names = {PLAIN: "codec alone"} | {scope: f"guided, {scope}" for scope in SCOPES}
    names |= {scope + ADAPTED: f"guided, {scope}, with adapter" for scope in SCOPES}
    print_ways(result, names)
    print("\nBD-rate of hierarchical guidance")
    for scope, entry in result["hierarchical_against"].items():
        print(f"{f'against {scope} guidance':40}{rate_of(entry)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
