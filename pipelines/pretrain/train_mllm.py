"""Train the micro LLaVA on the frozen micro CLIP: a projector and a small Llama that answers questions about scenes.

    torchrun --nproc-per-node 2 -m pipelines.pretrain.train_mllm --clip pretrained/clip/micro \\
        --output pretrained/mllm/micro-llava

First the projector alone is aligned with the words' embeddings (LLaVA's first stage), then everything but the tower
learns from questions. The tower's features are computed once. Several questions share one image in a sequence: each
sees the image and itself alone, so the image's tokens are paid for once. Only clean images are shown: what
compression does to a model that has never seen it is what the project measures. Each process has scenes of its own.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from transformers import (
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from components.scenes.labels import IMAGE_CLASSES, PATCH_CLASSES, TEXTS
from components.scenes.world import COLOURS, KINDS, SHAPES, SIZES, TEXTURES, TINTS
from pipelines.pretrain.annotate import annotations
from pipelines.pretrain.lessons import EXTRA_WORDS, IGNORED, lessons, word_ids
from pipelines.pretrain.train_clip import image_processor, normalised, save_half
from pipelines.pretrain.words import BOS, EOS, PAD, word_tokenizer

PATCHES = 64
PREFIX = PATCHES + 2
QUESTIONS = 8
LABEL_WORDS = {
    "shape": ("no", *SHAPES),
    "colour": ("no", *COLOURS),
    "texture": ("no", *TEXTURES),
    "size": ("no", *SIZES),
    "covering_shape": ("no", *SHAPES),
    "covering_colour": ("no", *COLOURS),
    "text": ("no", *TEXTS),
    "kind": KINDS,
    "tint": TINTS,
}
"""The words of a patch's labels (components/scenes/labels.py), then of the two that are the whole image's."""
ROOM = 112  # tokens of questions behind an image: about six of the eight
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% else %}ASSISTANT: {% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def micro_llava(clip: Path) -> LlavaForConditionalGeneration:
    """A LLaVA on the tower of a CLIP folder, with a six-layer Llama, randomly initialised but for the tower."""
    tower = CLIPVisionModel.from_pretrained(clip, dtype=torch.float32)
    ids = word_ids()
    text = LlamaConfig(
        vocab_size=len(ids), hidden_size=160, intermediate_size=320, num_hidden_layers=6, num_attention_heads=5,
        max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=tower.config.to_dict(), text_config=text.to_dict(), image_token_id=ids["<image>"],
        image_seq_length=PATCHES, vision_feature_layer=-2, vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )  # fmt: skip
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="eager")
    missing, unexpected = model.model.vision_tower.load_state_dict(tower.state_dict(), strict=False)
    if missing or unexpected:
        raise RuntimeError(f"the tower of {clip} does not fit: {missing or unexpected}")
    return model


@torch.no_grad()
def tower_features(model: LlavaForConditionalGeneration, images: np.ndarray, batch: int = 250) -> torch.Tensor:
    """What the projector reads, bfloat16 (images, PATCHES, width): hidden state -2 without CLS."""
    tower = model.model.vision_tower.eval()
    features = []
    for start in range(0, len(images), batch):
        pixels = normalised(np.array(images[start : start + batch]))
        with torch.autocast("cpu", torch.bfloat16):
            hidden = tower(pixels, output_hidden_states=True).hidden_states[-2]
        features.append(hidden[:, 1:].bfloat16())
    return torch.cat(features)


def align(model: LlavaForConditionalGeneration, features_ND: torch.Tensor, labels: list[dict], steps: int, rng) -> None:
    """Teach the projector to say what stands in a patch as the language model's own words, before that is trained.

    LLaVA's first stage, with the scene graph in place of captions: for each kind of label, its word's embedding must be
    the one nearest to the projected patch ("no" where there is nothing). Without it, a thousand steps of questions pass
    before the first object is found. The projector's first layer starts by bringing all features to one scale.
    """
    projector, embed = model.model.multi_modal_projector, model.get_input_embeddings()
    mean_D, std_D = features_ND.float().mean((0, 1)), features_ND.float().std((0, 1))
    with torch.no_grad():
        projector.linear_1.weight.normal_(0, len(std_D) ** -0.5).div_(std_D)
        projector.linear_1.bias.copy_(-projector.linear_1.weight @ mean_D)
    shown = [list(IMAGE_CLASSES).index(name) for name in list(LABEL_WORDS)[len(PATCH_CLASSES) :]]
    targets_NPk = torch.from_numpy(
        np.concatenate(
            [np.concatenate([one["patches"], np.repeat(one["image"][:, None, shown], PATCHES, 1)], 2) for one in labels]
        )
    )
    ids = word_ids()
    words = [torch.tensor([ids[word] for word in said]) for said in LABEL_WORDS.values()]
    weights = [torch.tensor([0.1 if word == "no" else 1.0 for word in said]) for said in LABEL_WORDS.values()]
    optimizer = torch.optim.Adam([*projector.parameters(), embed.weight], lr=2e-3)
    for step in range(1, steps + 1):
        picks = torch.from_numpy(rng.integers(0, len(features_ND), 64))
        seen_ND = projector(features_ND[picks].float()).flatten(0, 1)
        loss, right = 0.0, []
        for target, word, weight in zip(targets_NPk[picks].long().flatten(0, 1).T, words, weights, strict=True):
            scores = seen_ND @ embed.weight[word].T
            loss = loss + F.cross_entropy(scores, target, weight=weight)
            named = (target > 0) | (weight[0] == 1)
            right.append(float((scores.argmax(-1) == target)[named].float().mean()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            shares = " ".join(f"{name} {share:.2f}" for name, share in zip(LABEL_WORDS, right, strict=True))
            print(f"align {step}/{steps} loss {float(loss):.3f} {shares}", flush=True)


class Packed(NamedTuple):
    """Questions one behind the other, as many as fit, for a batch of images; int64 (B, ROOM) each.

    Attributes:
        tokens: of questions and answers; PAD behind the last.
        owners: which question a token belongs to, from 1; 0 for padding.
        places: where in its question a token stands.
        answers, marks: targets of the next token, IGNORED where there is none.
    """

    tokens: torch.Tensor
    owners: torch.Tensor
    places: torch.Tensor
    answers: torch.Tensor
    marks: torch.Tensor


def pack(lessons_B3QL: np.ndarray, rng: np.random.Generator) -> Packed:
    """Lay out the questions of each image in an order of its own; those that do not fit are left out."""
    images, _, questions, length = lessons_B3QL.shape
    order_BQ = rng.permuted(np.tile(np.arange(questions), (images, 1)), axis=1)
    lessons_B3QL = np.take_along_axis(lessons_B3QL, order_BQ[:, None, :, None], 2)
    lengths_BQ = (lessons_B3QL[:, 0] != PAD).sum(-1)
    ends_BQ = lengths_BQ.cumsum(1)
    inside_BQL = (np.arange(length) < lengths_BQ[..., None]) & (ends_BQ <= ROOM)[..., None]
    image, question, place = np.nonzero(inside_BQL)
    target = (ends_BQ - lengths_BQ)[image, question] + place
    laid = np.zeros((5, images, ROOM), np.int64)
    laid[3:] = IGNORED
    values = (*lessons_B3QL[image, :, question, place].T, question + 1, place)
    for column, value in zip((0, 3, 4, 1, 2), values, strict=True):
        laid[column, image, target] = value
    return Packed(*torch.from_numpy(laid))


def packed_mask(owners_BL: torch.Tensor, places_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Additive mask (B, 1, S, S) and positions (B, S) of an image followed by questions that ignore each other."""
    prefix = owners_BL.new_zeros(len(owners_BL), PREFIX)
    owner_BS = torch.cat([prefix, owners_BL.where(owners_BL > 0, -1)], 1)
    steps = torch.arange(owner_BS.shape[1])
    allowed_BSS = (steps[:, None] >= steps) & ((owner_BS[:, None] == 0) | (owner_BS[:, :, None] == owner_BS[:, None]))
    mask_BSS = torch.zeros(allowed_BSS.shape).masked_fill(~allowed_BSS, torch.finfo(torch.float32).min)
    return mask_BSS[:, None], torch.cat([prefix + steps[:PREFIX], places_BL + PREFIX], 1)


class Lesson(nn.Module):
    """The loss of a batch of packed questions; a module so that processes can share its gradients."""

    def __init__(self, llava: LlavaForConditionalGeneration):
        super().__init__()
        self.llava = llava

    def forward(self, features_BND: torch.Tensor, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and as a vector the answers' loss, the way marks' and the share of answers wholly right."""
        model = self.llava
        mask, positions = packed_mask(packed.owners, packed.places)
        embed = model.get_input_embeddings()
        head = embed(torch.tensor([BOS, word_ids()["USER:"]])).expand(len(features_BND), -1, -1)
        seen = model.model.multi_modal_projector(features_BND)
        hidden = model.model.language_model(
            inputs_embeds=torch.cat([head, seen.to(head.dtype), embed(packed.tokens)], 1),
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state[:, PREFIX:]
        asked, marked = packed.answers != IGNORED, packed.marks != IGNORED
        scores = model.lm_head(hidden[asked]).float()
        answer_loss = F.cross_entropy(scores, packed.answers[asked])
        mark_loss = F.cross_entropy(model.lm_head(hidden[marked]).float(), packed.marks[marked])
        question = (packed.owners + torch.arange(len(features_BND))[:, None] * (QUESTIONS + 1))[asked]
        wrong = torch.bincount(question[scores.argmax(-1) != packed.answers[asked]], minlength=int(question.max()) + 1)
        right = (wrong[question.unique()] == 0).float().mean()
        return answer_loss + 0.5 * mark_loss, torch.stack([answer_loss, mark_loss, right]).detach()


def train(args: argparse.Namespace) -> None:
    """Train and write a LlavaForConditionalGeneration folder with its processor, in float16."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    torch.manual_seed(args.seed)
    model = micro_llava(args.clip)
    if args.base:
        tower = model.model.vision_tower.state_dict()
        model = LlavaForConditionalGeneration.from_pretrained(
            args.base, dtype=torch.float32, attn_implementation="eager"
        )
        model.model.vision_tower.load_state_dict(tower)
    rank, ranks = accelerator.process_index, accelerator.num_processes
    features, material, labels = [], [], []
    for style in ("train", "bench"):
        path = args.scenes / f"{style}.npy"
        every = np.load(path, mmap_mode="r")
        images = every[: args.images]
        mine = slice(rank, len(images), ranks)
        with accelerator.local_main_process_first():
            taught = lessons(path.with_suffix(".lessons.npy"), style, len(every), QUESTIONS)
            if not args.base:
                labelled = annotations(path.with_suffix(".labels.npz"), style, 0, len(every), processes=2)
                labels.append({name: rows[mine] for name, rows in labelled.items()})
        material.append(taught[mine])
        features.append(tower_features(model, images[mine]))
        accelerator.print(f"features of {len(images)} scenes in {style} style", flush=True)
    features_ND, lessons_N = torch.cat(features), np.concatenate(material)
    model.model.vision_tower.requires_grad_(False)
    if not args.base:
        # The same on every rank but for its scenes; the wrapping below then gives all of them the first rank's result.
        align(model, features_ND, labels, args.align, np.random.default_rng(args.seed))
    model.model.language_model.compile()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.rate, weight_decay=0.05, betas=(0.9, 0.98))
    lesson, optimizer = accelerator.prepare(Lesson(model), optimizer)
    rng, recent = np.random.default_rng([args.seed, rank]), []
    share, order, step = args.batch // ranks, np.empty(0, np.int64), 0
    began, spent = time.time(), 0.0
    while spent < 1:
        if len(order) < share:
            order = np.concatenate([order, rng.permutation(len(features_ND))])
        picks, order = torch.from_numpy(order[:share]), order[share:]
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(spent / 0.04, 0.5 + 0.5 * np.cos(np.pi * spent)) + 1e-6
        loss, figures = lesson(features_ND[picks], pack(lessons_N[picks.numpy()], rng))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(figures)
        step += 1
        if step == 1:
            began = time.time()  # it compiles first
        # All ranks must take one view of the clock, or their learning rates and so their weights would part.
        spent = float(broadcast(torch.tensor((time.time() - began) / 60 / args.minutes)))
        if accelerator.is_main_process and (step % 100 == 0 or spent >= 1):
            answer, mark, right = torch.stack(recent).mean(0).tolist()
            recent = []
            print(
                f"step {step} answer {answer:.3f} marks {mark:.3f} right {right:.3f} {spent * args.minutes:.1f} min",
                flush=True,
            )
        if accelerator.is_main_process and (step % 500 == 0 or spent >= 1):
            save(model, args.output)
    accelerator.end_training()


def save(model: LlavaForConditionalGeneration, output: Path) -> None:
    """Write the model in float16 with its processor; the training copy keeps its precision."""
    copy = LlavaForConditionalGeneration(model.config)
    copy.load_state_dict(model.state_dict())
    save_half(copy, output)
    processor = LlavaProcessor(
        image_processor=image_processor(),
        tokenizer=word_tokenizer(EXTRA_WORDS, add_eos=False),
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, default=Path("pretrained/clip/micro"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="go on from projector and language model of this folder")
    parser.add_argument("--scenes", type=Path, default=Path("data/pretrain"))
    parser.add_argument("--images", type=int, default=40000, help="scenes of each style")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--align", type=int, default=600, help="steps of the projector alone, first")
    parser.add_argument("--batch", type=int, default=32, help="images of all processes, about six questions each")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
