"""Train the micro CLIP that guides the codec and sees for the micro MLLM.

    torchrun --nproc-per-node 2 -m pipelines.pretrain.train_clip --output pretrained/clip/micro

Four losses at once: contrastive between images and captions (Radford et al., 2021), which trains CLS; a dense loss per
patch on the features that an MLLM reads (what stands in the patch and what the whole image is, from the scene graph);
a loss on the pooled image (kind, tint, text, counts); and one that turns the shallow layers' CLS attention, which
guides the codec, to what the scene graph names. Question answering alone teaches a tower of this size almost nothing,
and contrast alone leaves it a shallow attention that guides no better than its own maps in random order.

Each process takes its share of the batch, one thread each: two threads of one process are hardly faster.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from torch.nn.utils import parametrize
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
)

from components.codec.guidance import LAYERS
from components.scenes.labels import IMAGE_CLASSES, attention_shares
from components.scenes.world import STYLES
from components.vision.tower import cls_row
from pipelines.pretrain.dense import PATCH_TARGETS, DenseLoss
from pipelines.pretrain.material import Material, captions, view_labels
from pipelines.pretrain.running import means, parsed, save_half
from pipelines.pretrain.tiles import GRID
from pipelines.pretrain.words import BOS, EOS, PAD, word_tokenizer

WIDTH = 128
SIDE = 128


def micro_clip(vocabulary: int) -> CLIPModel:
    """A CLIP of twelve thin layers over 8 x 8 patches, randomly initialised."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=12, num_attention_heads=4,
        image_size=SIDE, patch_size=16, projection_dim=WIDTH,
    )  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=80, projection_dim=WIDTH,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    # On a CPU eager attention in bfloat16 trains twice as fast as the fused kernel at 65 tokens.
    clip = CLIPModel._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        clip.vision_model.embeddings.position_embedding.weight[1:] += 0.3 * coordinates()
    return clip


def coordinates() -> torch.Tensor:
    """Sines and cosines of a patch's row and column, (GRID * GRID, WIDTH) in [-1, 1].

    Learned positions start far below the patches' own embeddings: after 4,000 steps the tower told large from small in
    99 of 100 objects, but not where the large one stood.
    """
    frequencies = torch.pi / GRID * torch.linspace(0.5, 4, WIDTH // 4)
    angles_GF = torch.arange(GRID)[:, None] * frequencies
    waves_GV = torch.cat([angles_GF.sin(), angles_GF.cos()], 1)
    return torch.cat([waves_GV.repeat_interleave(GRID, 0), waves_GV.repeat(GRID, 1)], 1)


def image_processor() -> CLIPImageProcessor:
    """The processor that ships with the tower: resize to 128, crop, normalise as CLIP does."""
    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def normalised(images: torch.Tensor) -> torch.Tensor:
    """What that processor makes of scenes of its own size: uint8 (B, SIDE, SIDE, 3) to float32 (B, 3, SIDE, SIDE)."""
    processor = image_processor()
    mean, std = (
        torch.tensor(values, device=images.device).view(1, 3, 1, 1) * 255
        for values in (processor.image_mean, processor.image_std)
    )
    return (images.permute(0, 3, 1, 2).float() - mean) / std


class Whitened(nn.Module):
    """A patch embedding that learns in coordinates in which the pixels of a patch are white (Kessy et al., 2018: ZCA).

    Neighbouring pixels are so alike that in pixel coordinates fine texture hardly moves the loss. The shipped weight is
    the product, so the model stays a plain CLIP.
    """

    def __init__(self, patches_NP: torch.Tensor, floor: float = 0.01):
        super().__init__()
        values, vectors = torch.linalg.eigh(torch.cov(patches_NP.T.double()))
        scale = (values + floor).rsqrt()
        self.register_buffer("whiten", (vectors * scale @ vectors.T).float())
        self.register_buffer("colour", (vectors / scale @ vectors.T).float())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return (weight.flatten(1) @ self.whiten).view_as(weight)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        return (weight.flatten(1) @ self.colour).view_as(weight)


class Lesson(nn.Module):
    """A CLIP with linear read-outs for the dense and the image loss; they are thrown away after training."""

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip
        self.dense = DenseLoss(WIDTH)
        self.image = nn.Linear(WIDTH, sum(IMAGE_CLASSES.values()))

    def forward(self, pixels_B3HW, patch_labels_BNk, image_labels_Bm, tokens_BL):
        """The loss; and as a vector the four losses and the shares of targets read rightly."""
        seen = self.clip.vision_model(pixels_B3HW, output_hidden_states=True)
        # Padding stands behind </s>, where causal attention keeps it from the pooled token.
        read = self.clip.text_projection(self.clip.text_model(tokens_BL).pooler_output)
        shown = self.clip.visual_projection(seen.pooler_output)
        logits = F.normalize(shown.float(), dim=-1) @ F.normalize(read.float(), dim=-1).T
        logits = logits * self.clip.logit_scale.exp().clamp(max=100)
        pairs = torch.arange(len(logits))
        contrastive = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        dense, right = self.dense(seen.hidden_states[-2][:, 1:], patch_labels_BNk, image_labels_Bm)
        image = sum(
            F.cross_entropy(scores, target)
            for scores, target in zip(
                self.image(seen.pooler_output).float().split(list(IMAGE_CLASSES.values()), -1),
                image_labels_Bm.T,
                strict=True,
            )
        ) / len(IMAGE_CLASSES)
        guiding = self.guiding(seen.hidden_states, patch_labels_BNk)
        loss = 0.3 * contrastive + 10 * dense + image + 0.5 * guiding
        return loss, torch.stack([contrastive, dense, image, guiding, *right]).detach()

    def guiding(self, hidden_states, patch_labels_BNk):
        """Divergence of the shallow layers' mean CLS attention to the patches from its due shares, in nats."""
        layers = self.clip.vision_model.encoder.layers
        drawn_BN = torch.stack([cls_row(layers[depth], hidden_states[depth]) for depth in LAYERS]).mean(0)
        drawn_BN = drawn_BN / drawn_BN.sum(1, keepdim=True)
        share_BN = attention_shares(patch_labels_BNk)
        return (torch.xlogy(share_BN, share_BN) - share_BN * drawn_BN.log()).sum(1).mean()


Scenes = tuple[np.ndarray, np.ndarray, np.ndarray, torch.Tensor]
"""Of one style: pixels, labels of patches, labels of images, caption tokens."""


def batches(arrays: list[Scenes], batch: int, seed: int):
    """Endless shuffled batches over several arrays of scenes: pixels, patch labels, image labels, caption tokens."""
    owners = np.concatenate([np.full(len(images), i) for i, (images, *_) in enumerate(arrays)])
    places = np.concatenate([np.arange(len(images)) for images, *_ in arrays])
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(owners))
        for start in range(0, len(order) - batch + 1, batch):
            picks = order[start : start + batch]
            rows = [(arrays[owners[i]], places[i]) for i in picks]
            pixels = normalised(torch.from_numpy(np.stack([a[0][p] for a, p in rows])))
            patch, image = (torch.from_numpy(np.stack([a[n][p] for a, p in rows])).long() for n in (1, 2))
            yield pixels, patch, image, torch.stack([a[3][p] for a, p in rows])


def material(folder: Path, tokenizer) -> list[Scenes]:
    """The rendered scenes of both styles."""
    arrays = []
    for style in STYLES:
        scenes = Material(style)
        pixels = scenes.pixels(folder)
        patch, image = view_labels(folder, scenes, len(pixels), processes=2)
        said = list(captions(folder, scenes, len(pixels), processes=2))
        tokens = tokenizer(said, padding="max_length", truncation=True, max_length=78, return_tensors="pt").input_ids
        arrays.append((pixels, patch[:, 0], image[:, 0], tokens))
    return arrays


def train(args: argparse.Namespace) -> None:
    """Train and write a CLIPModel folder (float16 safetensors) with its processor and tokenizer."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    torch.manual_seed(args.seed)
    tokenizer = word_tokenizer()
    with accelerator.local_main_process_first():
        arrays = material(args.scenes, tokenizer)
    clip = micro_clip(len(tokenizer))
    if args.base:
        clip = CLIPModel.from_pretrained(args.base, dtype=torch.float32, attn_implementation="eager")
    embedding = clip.vision_model.embeddings.patch_embedding
    some = next(batches(arrays, 512, args.seed))[0]
    patches_NP = F.unfold(some, embedding.kernel_size, stride=embedding.stride).transpose(1, 2).flatten(0, 1)
    parametrize.register_parametrization(embedding, "weight", Whitened(patches_NP))
    clip.vision_model.compile()
    lesson = Lesson(clip)
    optimizer = torch.optim.AdamW(lesson.parameters(), lr=args.rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, args.steps, pct_start=0.06)
    wrapped, optimizer = accelerator.prepare(lesson, optimizer)
    share, rank = args.batch // accelerator.num_processes, accelerator.process_index
    began, recent = time.time(), []
    for step, batch in zip(range(1, args.steps + 1), batches(arrays, share, args.seed + rank), strict=False):
        loss, figures = wrapped(*batch)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(lesson.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(figures)
        if accelerator.is_main_process and (step % 50 == 0 or step == args.steps):
            line = means(("contrastive", "dense", "image", "guiding", *PATCH_TARGETS), recent)
            recent = []
            print(f"step {step}/{args.steps} {line} {(time.time() - began) / 60:.1f} min", flush=True)
        if accelerator.is_main_process and (step % 500 == 0 or step == args.steps):
            save(clip, tokenizer, args.output)
    accelerator.end_training()


def save(model: CLIPModel, tokenizer, output: Path) -> None:
    """Write the model in float16 with its processor and tokenizer."""
    place = "vision_model.embeddings.patch_embedding."
    state = {name: value for name, value in model.state_dict().items() if "parametrizations" not in name}
    weight = model.get_submodule(place.rstrip(".")).weight.detach()
    save_half(model, output, state | {place + "weight": weight})
    image_processor().save_pretrained(output)
    tokenizer.save_pretrained(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="go on from this CLIP folder")
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--batch", type=int, default=128)
    train(parsed(parser, rate=1.5e-3))


if __name__ == "__main__":
    main()
