"""The files of a finished run, made up but for the codec's: eight small images through a tiny random codec.

Scores rise with the rate and a little more for CoTAM, so that every curve, interval and example exists.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.streams import CLEAN, Setting, write_streams
from components.files import write_json
from components.paths import Paths
from tests.made_up_summary import KINDS

CODEC, MLLM = "elic", "micro-llava"
IMAGES = [f"{number:06d}" for number in range(8)]
QUALITIES = (0, 2, 5, 8)
SIDE = 64
SETTINGS = {
    "seed": 7,
    "codecs": (CODEC,),
    "codec": {CODEC: {"weights": "pretrained/codec"}},
    "mllms": (MLLM,),
    "evaluation": {"bootstrap": 20, "qualities": QUALITIES, "tasks": ()},
}


def write_run(root: Path) -> Paths:
    """Write everything that the report step reads below `root`."""
    paths = Paths(root)
    pictures = _images(paths)
    streams = _codec_streams(root, pictures)
    paths.rate(CODEC).mkdir(parents=True)
    write_streams(paths.rate(CODEC) / "streams.zip", ((setting, "bench", files) for setting, files in streams.items()))
    write_json(paths.rate(CODEC) / "rates.json", _rates(streams))
    _scores(paths, list(streams))
    for stage, factor in (("warmup", 0.7), ("joint", 0.5)):
        losses = {"low": factor, "low_unadapted": 1.0, "high": factor, "high_unadapted": 1.0}
        folder = getattr(paths, stage)(CODEC, MLLM)
        write_json(folder / "metrics.json", {"training": {}, "validation": {str(q): losses for q in QUALITIES}})
    hashes = {"codec": {CODEC: "ab" * 32}, "mllm": {MLLM: "cd" * 32}, "tower": "ef" * 32}
    write_json(paths.weights, hashes | {"kinds": {MLLM: KINDS[MLLM]}})
    write_json(paths.shards / "manifest.json", {"images": 0})
    return paths


def _images(paths: Paths) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    folder = paths.benchmarks / "bench/images"
    folder.mkdir(parents=True)
    pictures = {}
    for name in IMAGES:
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        picture = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(folder / f"{name}.png")
        pictures[name] = np.asarray(picture)
    return pictures


def _codec_streams(root: Path, pictures: dict[str, np.ndarray]) -> dict[Setting, dict[str, bytes]]:
    import torch

    from components.codec import Codec, CodecConfig
    from components.codec.elic import Elic
    from components.codec.folder import save_codec

    sizes = {"hyper_channels": 4, "side_channels": 8, "context_channels": 4, "hidden_channels": 8, "blocks": 1}
    config = CodecConfig(widths=(4, 8, 8), latent_channels=12, groups=(4, 8), **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        save_codec(root / "pretrained/codec", Elic(config))
    codec = Codec.from_pretrained(root / "pretrained/codec")
    levels = [np.array([[1, 0], [0, -1]], np.int8)] * len(pictures)
    found = {}
    for quality in QUALITIES:
        for method, maps in ((CODEC, None), ("cotam", levels)):
            files = codec.encode(list(pictures.values()), quality, maps)
            found[Setting(method, str(quality))] = dict(zip(pictures, files, strict=True))
        for method in ("jpeg", "webp"):
            found[Setting(method, str(quality))] = {name: bytes(500 * (quality + 1)) for name in pictures}
    return found


def _rates(streams: dict[Setting, dict[str, bytes]]) -> dict:
    methods: dict = {}
    for setting, files in streams.items():
        bits = [8 * len(files[name]) for name in IMAGES]
        entry = {"bits": bits, "header_bits": [152] * len(IMAGES), "psnr": [30.0] * len(IMAGES)}
        methods.setdefault(setting.method, {})[setting.quality] = entry
    style = {"images": IMAGES, "pixels": [SIDE * SIDE] * len(IMAGES), "methods": methods}
    points = [{"quality": q, "bpp": 0.1 + q, "bpp_without_header": 0.05 + q, "psnr": 30.0 + q} for q in QUALITIES]
    return {
        "schema": 1,
        "codec": CODEC,
        "styles": {"bench": style, "train": style | {"methods": _learned(methods)}},
        "photographs": {"images": ["astronaut"], "plain": points, "guided": points},
        "map_bits": {"cells": 4, "mean": 6.5, "max": 8.0, "share": 0.01},
    }


def _learned(methods: dict) -> dict:
    """Without the yardsticks, which take no part in the styles of training."""
    return {method: entry for method, entry in methods.items() if method not in ("jpeg", "webp")}


def _scores(paths: Paths, settings: list[Setting]) -> None:
    rng = np.random.default_rng(7)
    questions = [
        {
            "benchmark": benchmark,
            "id": f"{image}-{number}",
            "image": image,
            "level": ("low", "high", "cross")[number],
            "family": "existence",
            "category": "existence",
            "pair": f"{image}-{number}" if benchmark == "mme" else None,
        }
        for benchmark in BENCHMARKS
        for image in IMAGES
        for number in range(3)
    ]
    ease = rng.random(len(questions))
    scores: dict = {CLEAN.method: {CLEAN.quality: [1] * len(questions)}}
    for setting in settings:
        place = QUALITIES.index(int(setting.quality))
        chance = 0.5 + 0.1 * place + {"cotam": 0.1, "jpeg": -0.2, "webp": -0.1}.get(setting.method, 0.0)
        scores.setdefault(setting.method, {})[setting.quality] = [int(value < chance) for value in ease]
    folder = paths.scores(CODEC, MLLM)
    asked_of_style = {"questions": questions, "scores": scores}
    styles = {"bench": asked_of_style, "train": asked_of_style | {"scores": _learned(scores)}}
    write_json(folder / "scores.json", {"schema": 1, "codec": CODEC, "mllm": MLLM, "styles": styles})
    asked = [
        {**{key: question[key] for key in ("benchmark", "id", "image", "level", "family")}, "truth": "yes"}
        | {"prompt": f"is there a {question['level']} shape in {question['benchmark']} ? answer yes or no ."}
        for question in questions
    ]
    samples = folder / "samples"
    samples.mkdir()
    (samples / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    for method, qualities in scores.items():
        for quality, values in qualities.items():
            write_json(samples / f"{method}-{quality}.json", [["yes" if value else "no", value] for value in values])
