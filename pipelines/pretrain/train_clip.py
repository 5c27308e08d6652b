"""Train the micro CLIP that guides the codec and sees for the micro MLLM.

    python -m pipelines.pretrain.train_clip --output pretrained/clip/micro --steps 3600

Three losses at once: contrastive between images and captions (Radford et al., 2021), which trains CLS; a dense loss per
patch on the features that an MLLM reads (what stands in the patch, from the scene graph); and a loss on the pooled
image (kind, tint, text, counts). Question answering alone teaches a tower of this size almost nothing.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from components.scenes.labels import IMAGE_CLASSES, PATCH_CLASSES
from pipelines.pretrain.annotate import annotations
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
    return CLIPModel._from_config(config, attn_implementation="eager")


def image_processor() -> CLIPImageProcessor:
    """The processor that ships with the tower: resize to 128, crop, normalise as CLIP does."""
    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


class Heads(nn.Module):
    """Linear read-outs for the dense and the image loss; they are thrown away after training."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.patch = nn.Linear(WIDTH, sum(PATCH_CLASSES.values()))
        self.image = nn.Linear(WIDTH, sum(IMAGE_CLASSES.values()))

    def forward(self, tokens_BND, pooled_BD, patch_labels_BNk, image_labels_Bm):
        """The dense and the image loss, and the share of object centres whose shape is read rightly."""
        logits = self.patch(self.norm(tokens_BND)).float().split(list(PATCH_CLASSES.values()), -1)
        dense = 0.0
        for column, (name, scores) in enumerate(zip(PATCH_CLASSES, logits, strict=True)):
            target = patch_labels_BNk[..., column].flatten()
            weight = torch.ones(scores.shape[-1])
            weight[0] = 0.25
            dense = dense + F.cross_entropy(scores.flatten(0, 1), target, weight=weight)
            if name == "shape":
                centres = target > 0
                right = (scores.flatten(0, 1).argmax(-1) == target)[centres].float().mean()
        image = sum(
            F.cross_entropy(scores, image_labels_Bm[:, column])
            for column, scores in enumerate(self.image(pooled_BD).float().split(list(IMAGE_CLASSES.values()), -1))
        )
        return dense / len(PATCH_CLASSES), image / len(IMAGE_CLASSES), right


def batches(arrays: list[tuple[np.ndarray, dict, torch.Tensor]], batch: int, seed: int):
    """Endless shuffled batches over several arrays of scenes: pixels, patch labels, image labels, caption tokens."""
    processor = image_processor()
    mean = torch.tensor(processor.image_mean).view(1, 3, 1, 1) * 255
    std = torch.tensor(processor.image_std).view(1, 3, 1, 1) * 255
    owners = np.concatenate([np.full(len(images), i) for i, (images, _, _) in enumerate(arrays)])
    places = np.concatenate([np.arange(len(images)) for images, _, _ in arrays])
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(owners))
        for start in range(0, len(order) - batch + 1, batch):
            picks = order[start : start + batch]
            rows = [(arrays[owners[i]], places[i]) for i in picks]
            pixels = torch.from_numpy(np.stack([a[0][p] for a, p in rows])).permute(0, 3, 1, 2).float()
            patch = torch.from_numpy(np.stack([a[1]["patches"][p] for a, p in rows])).long()
            image = torch.from_numpy(np.stack([a[1]["image"][p] for a, p in rows])).long()
            yield (pixels - mean) / std, patch, image, torch.stack([a[2][p] for a, p in rows])


def train(images: list[tuple[Path, str]], output: Path, steps: int, batch: int, rate: float, seed: int) -> None:
    """Train and write a CLIPModel folder (float16 safetensors) with its processor and tokenizer."""
    torch.manual_seed(seed)
    tokenizer = word_tokenizer()
    arrays = []
    for path, style in images:
        pixels = np.load(path)
        labels = annotations(path.with_suffix(".labels.npz"), style, 0, len(pixels), processes=2)
        tokens = tokenizer(
            list(labels["captions"]), padding="max_length", truncation=True, max_length=78, return_tensors="pt"
        ).input_ids
        arrays.append((pixels, labels, tokens))
    model, heads = micro_clip(len(tokenizer)), Heads()
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.06)
    began, source = time.time(), batches(arrays, batch, seed)
    for step in range(1, steps + 1):
        pixels, patch_labels, image_labels, tokens = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.vision_model(pixels, output_hidden_states=True)
            # Padding stands behind </s>, where causal attention keeps it from the pooled token.
            read = model.text_projection(model.text_model(tokens).pooler_output)
            shown = model.visual_projection(seen.pooler_output)
            logits = F.normalize(shown.float(), dim=-1) @ F.normalize(read.float(), dim=-1).T
            logits = logits * model.logit_scale.exp().clamp(max=100)
            labels = torch.arange(batch)
            contrastive = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
            dense, image, right = heads(seen.hidden_states[-2][:, 1:], seen.pooler_output, patch_labels, image_labels)
        (0.3 * contrastive + 3 * dense + image).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0 or step == steps:
            print(
                f"step {step}/{steps} contrastive {contrastive:.3f} dense {dense:.4f} image {image:.3f} "
                f"shapes {right:.3f} {(time.time() - began) / 60:.1f} min",
                flush=True,
            )
        if step % 600 == 0 or step == steps:
            save(model, tokenizer, output)


def save(model: CLIPModel, tokenizer, output: Path) -> None:
    """Write the model in float16 with its processor and tokenizer; the training copy keeps its precision."""
    copy = CLIPModel(model.config)
    copy.load_state_dict(model.state_dict())
    copy.half().save_pretrained(output)
    image_processor().save_pretrained(output)
    tokenizer.save_pretrained(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, default=Path("data/pretrain"))
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = [(args.scenes / "train.npy", "train"), (args.scenes / "bench.npy", "bench")]
    train(images, args.output, args.steps, args.batch, args.rate, args.seed)


if __name__ == "__main__":
    main()
