"""A checkout in which the real steps run in seconds: tiny random models, a few dozen scenes, the real code."""

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from components.codec.config import CodecConfig, DcaeConfig
from components.config import Settings, load, override, read_yaml
from components.data.sharding import shard_folder
from components.evaluation.step_benchmarks import write_benchmarks
from components.paths import ROOT, Paths
from components.scenes import render, sample_scene
from components.steps import run_step
from tests.models import tiny_clip_folder, tiny_llava_folder
from tests.models_tiled import tiny_internvl_folder

CODEC, MLLM = "elic", "micro-llava"
SCENES = 40

SETTINGS = {
    "threads": "1",
    "adapter.batch": "4",
    "adapter.held_out": "8",
    "adapter.heads": "2",
    "adapter.learning_rate": "0.003",
    "adapter.qualities": "[1, 5, 9]",
    "adapter.warmup_epochs": "12",
    "adapter.warmup_layer": "0",
    "adapter.warmup_mixed": "0.0",
    "adapter.joint_epochs": "24",
    "adapter.width": "32",
    "evaluation.images": "6",
    "more_seeds": "[]",
    "variants": "{}",
    "evaluation.qualities": "[0, 4, 8]",
    "evaluation.jpeg_qualities": "[5, 50]",
    "evaluation.webp_qualities": "[5]",
}


def scenes(count: int, first: int = 0) -> list[np.ndarray]:
    """Rendered scenes of the training split, uint8 (128, 128, 3)."""
    return [render(sample_scene(first + number, "train", "train", 128)) for number in range(count)]


TINY_ELIC = CodecConfig(
    widths=(8, 8, 12),
    latent_channels=12,
    groups=(4, 8),
    hyper_channels=4,
    side_channels=8,
    context_channels=4,
    hidden_channels=8,
    blocks=1,
)
TINY_DCAE = DcaeConfig(
    widths=(8, 8, 12),
    latent_channels=12,
    groups=(4, 8),
    swin=(1, 1, 2),
    heads=(4, 4, 4),
    window=4,
    hyper_channels=4,
    hyper_width=8,
    hyper_head=4,
    side_channels=6,
    prior_channels=6,
    dictionary=5,
    dictionary_head=4,
    parameter_channels=(8, 8),
)


def tiny_settings(folder: Path) -> Settings:
    """params.yaml's, with tiny models in `folder` and an adapter of their size, on one thread."""
    tiny_codec_folder(folder / "codec")
    tiny_clip_folder(folder / "clip")
    tiny_llava_folder(folder / "llava")
    return load(
        overrides={
            "threads": "1",
            "codec.elic.weights": str(folder / "codec"),
            "mllm.micro-llava.weights": str(folder / "llava"),
            "guidance.tower": str(folder / "clip"),
            "adapter.width": "32",
            "variants": "{}",
        }
    )


def tiny_codec_folder(folder: Path, seed: int = 5, config: CodecConfig | DcaeConfig = TINY_ELIC) -> Path:
    """Write a codec of a few thousand parameters, which starts from principal components and so carries something."""
    import torch

    from components.codec.architectures import build
    from components.codec.folder import save_codec
    from components.codec.start import start_from_principal_components

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(config)
    pictures = torch.from_numpy(np.stack(scenes(8, first=900))).permute(0, 3, 1, 2).float() / 255
    start_from_principal_components(model, pictures)
    save_codec(folder, model)
    return folder


def write_shards(folder: Path, images: list[np.ndarray]) -> Path:
    """Pack images into shards, two of them or more."""
    source = folder.with_name(f"{folder.name}-images")
    source.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(source / f"{number:04d}.png")
    shard_folder(source, folder, seed=7, shard_images=max(1, len(images) // 2))
    return folder


def write_checkout(root: Path, settings: dict[str, str] | None = None) -> Paths:
    """Write settings and models below `root`, whose code is that of this checkout, and run the step `weights`."""
    (root / "components").symlink_to(ROOT / "components")
    raw = read_yaml(ROOT / "params.yaml")
    for key, value in (SETTINGS | (settings or {})).items():
        override(raw, key, value)
    (root / "params.yaml").write_text(yaml.safe_dump(raw))
    tiny_codec_folder(root / "pretrained/codec/elic-micro")
    if "dcae" in raw["codecs"]:
        tiny_codec_folder(root / "pretrained/codec/dcae-micro", config=TINY_DCAE)
    tiny_clip_folder(root / "pretrained/clip/micro", seed=1)
    tiny_llava_folder(root / "pretrained/mllm/micro-llava", seed=2)
    if "micro-internvl" in raw["mllms"]:
        tiny_internvl_folder(root / "pretrained/mllm/micro-internvl", seed=2)
    run_step("weights", paths=Paths(root))
    return Paths(root)


def write_small_benchmarks(paths: Paths, images: int = 6) -> None:
    """The benchmarks of both styles."""
    write_benchmarks(paths.benchmarks / "bench", images, "bench", seed=7, side=128)
    write_benchmarks(paths.benchmarks / "train", (images + 1) // 2, "train", seed=7, side=128)
