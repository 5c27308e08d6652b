"""Train the towers of the tiled micro MLLMs, an InternViT or a SigLIP, from the micro CLIP.

    python -m pipelines.pretrain.train_tower internvit --output data/pretrain/internvit --minutes 10

The tower starts with the CLIP's blocks (`warm_start.py`). Two losses: on ordinary scenes and on tiles of detailed ones,
where the CLIP sees well, the features that the CLIP gives; everywhere, and above all on wholes made as small as a tile,
which the CLIP has never seen, the dense loss of `dense.py`.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionModel, PreTrainedModel

from components.cores import cores
from components.scenes.world import STYLES
from pipelines.pretrain.dense import PATCH_TARGETS, DenseLoss
from pipelines.pretrain.material import Material, view_labels
from pipelines.pretrain.running import add_device, held, learning_rate, means, parsed, save_half
from pipelines.pretrain.tiles import cut
from pipelines.pretrain.train_clip import image_processor, normalised
from pipelines.pretrain.warm_start import TOWERS, tower_from_clip

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
Source = tuple[int, Tensor, list[Tensor]]
"""Scenes to pick from: their detail, their pixels, and the labels of their patches and of the images."""
HEADS_ALONE = 0.2  # of the time, in which the read-outs learn to read the tower as it is
HEAD_RATE = 8  # the read-outs start from nothing and learn so much faster than the tower


class Lesson(nn.Module):
    """A tower with what it is held against."""

    def __init__(self, tower: PreTrainedModel, clip: CLIPVisionModel):
        super().__init__()
        self.tower, self.dense = tower, DenseLoss(tower.config.hidden_size)
        self.clip = [clip.eval().requires_grad_(False)]  # in a list: it is no part of what is trained

    def forward(
        self, pixels_B3HW: Tensor, patch_labels: Tensor, image_labels: Tensor, known_B: Tensor, reading: bool
    ) -> tuple[Tensor, Tensor]:
        """The loss; and as a vector both losses and the shares of targets read rightly on what the CLIP cannot see.

        Unless `reading`, the tower learns nothing from the dense loss: read-outs that know nothing would spoil it.
        """
        with torch.no_grad():
            due_BND = self.clip[0](pixels_B3HW[known_B], output_hidden_states=True).hidden_states[-2][:, 1:].float()
        seen_BND = consumed(self.tower, pixels_B3HW).float()
        likeness = F.mse_loss(seen_BND[known_B], due_BND) / due_BND.var((0, 1)).mean()
        dense, _ = self.dense(seen_BND if reading else seen_BND.detach(), patch_labels, image_labels)
        with torch.no_grad():
            _, right = self.dense(seen_BND[~known_B], patch_labels[~known_B], image_labels[~known_B])
        return likeness + 5 * dense, torch.stack([likeness, dense, *right]).detach()


def consumed(tower: PreTrainedModel, pixels_B3HW: Tensor) -> Tensor:
    """What an MLLM reads of a tower's patches: the state after its last block, before any last norm."""
    states = tower(pixels_B3HW, output_hidden_states=True).hidden_states[-1]
    return states[:, states.shape[1] - tower_patches(tower) :]


def tower_patches(tower: PreTrainedModel) -> int:
    """How many patches a tower has."""
    side, patch = tower.config.image_size, tower.config.patch_size
    side, patch = (size if isinstance(size, int) else size[0] for size in (side, patch))
    return (side // patch) ** 2


def sources(args: argparse.Namespace, device: torch.device) -> list[Source]:
    """Ordinary and detailed scenes of every style."""
    found = []
    for style in STYLES:
        for one in (1, args.detail):
            material = Material(style, one)
            pixels = material.pixels(args.scenes)[: args.images]
            labels = view_labels(args.scenes, material, len(pixels), processes=cores())
            found.append((one, held(pixels, device), [held(column, device) for column in labels]))
    return found


def batches(scenes: list[Source], count: int, seed: int) -> Iterator[Batch]:
    """Endless batches of `count` ordinary scenes, as many tiles, and as many wholes that are made small."""
    rng = np.random.default_rng(seed)
    while True:
        parts = []
        for one, pixels, (patch_labels, image_labels) in scenes:
            device = pixels.device
            picks = torch.from_numpy(rng.integers(0, len(pixels), count // len(STYLES))).sort()[0].to(device)
            views = cut(pixels[picks], one)
            whole = views.shape[1] - 1
            for view in {whole, int(rng.integers(0, max(1, whole)))}:
                known = torch.full((len(picks),), one == 1 or view != whole, device=device)
                parts.append((views[:, view], patch_labels[picks, view], image_labels[picks, view], known))
        pixels, patch, image, known = (torch.cat(column) for column in zip(*parts, strict=True))
        yield normalised(pixels), patch.long(), image.long(), known


def train(args: argparse.Namespace) -> None:
    """Train for so many minutes and write the tower with its image processor, in float16."""
    torch.manual_seed(args.seed)
    clip = CLIPVisionModel.from_pretrained(args.clip, dtype=torch.float32, attn_implementation="eager")
    tower = tower_from_clip(args.kind, args.clip)
    if args.base:
        tower.load_state_dict(type(tower).from_pretrained(args.base, dtype=torch.float32).state_dict())
    device = torch.device(args.device)
    lesson = Lesson(tower.to(device), clip.to(device)).to(device)
    heads, body = list(lesson.dense.parameters()), list(tower.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": body, "scale": 1.0}, {"params": heads, "scale": HEAD_RATE}], weight_decay=0.05, betas=(0.9, 0.98)
    )
    if not args.minutes:
        write(tower, args.output)
        return
    material = batches(sources(args, device), args.batch, args.seed)
    recent, step, spent, began = [], 0, 0.0, time.time()
    while spent < 1:
        batch = next(material)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.rate, spent) * group["scale"]
        with torch.autocast(device.type, torch.bfloat16):
            loss, figures = lesson(*batch, reading=spent > HEADS_ALONE)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*body, *heads], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(figures)
        step += 1
        spent = (time.time() - began) / 60 / args.minutes
        if step % 50 == 0 or spent >= 1:
            line = means(("likeness", "dense", *PATCH_TARGETS), recent)
            recent = []
            print(f"step {step} {line} {spent * args.minutes:.1f} min", flush=True)
        if step % 100 == 0 or spent >= 1:
            write(tower, args.output)


def write(tower: PreTrainedModel, output: Path) -> None:
    """Write the tower in float16 with its image processor."""
    save_half(tower, output)
    image_processor().save_pretrained(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=TOWERS)
    parser.add_argument("--clip", type=Path, default=Path("pretrained/clip/micro"))
    parser.add_argument("--base", type=Path, help="go on from this tower")
    parser.add_argument("--images", type=int, default=40000, help="scenes of each style and detail, at most")
    parser.add_argument("--detail", type=int, default=2, help="of the scenes that are cut into tiles")
    parser.add_argument("--minutes", type=float, default=60, help="0: write it as it starts")
    parser.add_argument("--batch", type=int, default=32, help="ordinary scenes, tiles and wholes, so many of each")
    add_device(parser)
    train(parsed(parser, rate=2e-4))


if __name__ == "__main__":
    main()
