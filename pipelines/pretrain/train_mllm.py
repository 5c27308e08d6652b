"""Train a micro MLLM on a frozen micro tower: a projector and a small language model that answers about scenes.

    torchrun --nproc-per-node 2 -m pipelines.pretrain.train_mllm --tower pretrained/clip/micro \\
        --output pretrained/mllm/micro-llava
    python -m pipelines.pretrain.train_mllm internvl --tower data/pretrain/internvit --details 1 2 4 --clips 1600 \\
        --llava pretrained/mllm/micro-llava --output data/pretrain/internvl

First the projector alone is aligned with the words' embeddings (LLaVA's first stage), or all begins with what a micro
LLaVA knows (`warm_start.py`); then everything but the tower learns from questions. The tower's features are computed
once. Beside the answers the language model learns where things are (`whereabouts.py`), by read-outs that start anew
with every call. Several questions share one image in a sequence (`packing.py`); tiles, and the frames of a clip, are
joined by the model's own code. Only clean images are shown: what compression does to a model that has never seen it is
what the project measures. Each process has scenes of its own.
"""

import argparse
import time
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from components.cores import cores
from components.evaluation.clips import FRAMES
from components.mllm import FAMILIES
from components.mllm.family import Family
from components.mllm.onevision import OneVision
from components.mllm.prompts import Prompts
from components.mllm.visual import Kind, Visual
from components.scenes.world import STYLES
from pipelines.pretrain import attention
from pipelines.pretrain.align import align
from pipelines.pretrain.features import features
from pipelines.pretrain.groups import Group
from pipelines.pretrain.lessons import lessons
from pipelines.pretrain.material import Material, view_labels
from pipelines.pretrain.micro_models import DETAILS, MODELS
from pipelines.pretrain.packing import Packed, pack, packed_mask
from pipelines.pretrain.running import add_device, held, learning_rate, means, parsed, save_half
from pipelines.pretrain.tiles import GRID, IGNORED
from pipelines.pretrain.warm_start import start_language, start_projector
from pipelines.pretrain.whereabouts import HEADS, LAYER, WEIGHTS, Whereabouts

QUESTIONS = 16
FIGURES = ("answer", "marks", "early", *WEIGHTS, "right")


class Lesson(nn.Module):
    """The loss of a batch of packed questions; a module so that processes can share its gradients."""

    def __init__(self, family: Family, processor: Any):
        super().__init__()
        self.model = family.model
        self.family, self.processor = [family], processor  # in a list: a family is no module, and holds the model
        config = family.model.config
        attention.use(self.model.model.language_model, LAYER, HEADS)
        self.whereabouts = Whereabouts(config.text_config.hidden_size)
        self.prompts = Prompts(processor, config.image_token_id, getattr(config, "video_token_id", None))
        self.asked, self.mark = processor.tokenizer.convert_tokens_to_ids(["ASSISTANT:", "?"])

    def prefix(self, shown_BPE: Tensor, visual: Visual) -> tuple[Tensor, Tensor]:
        """What stands before a question, (B, S, E): the prompt's head with the image or the frames in it.

        Beside it: at which positions, int64 (P,).
        """
        placeholder = self.family[0].placeholder(self.processor, visual, shown_BPE.shape[1])
        head, tail = self.prompts.ids("", visual.kind, (placeholder,))
        ids = torch.tensor([*head, *tail[: tail.index(self.asked)]], device=shown_BPE.device)
        prefix_BSE = self.model.get_input_embeddings()(ids).expand(len(shown_BPE), -1, -1).clone()
        places = torch.isin(ids, torch.tensor(sorted(self.prompts.placeholder_ids), device=ids.device))
        prefix_BSE[:, places] = shown_BPE.to(prefix_BSE.dtype)
        return prefix_BSE, places.nonzero()[:, 0]

    def shown(self, features_BVTD: Tensor, material: Material) -> tuple[Tensor, Visual, int]:
        """What stands for the image or the frames in the prompt, (B, P, E), what it is, and the tokens of one view."""
        family, size = self.family[0], (material.size,) * 2
        seen_BVnE = family.project(features_BVTD.flatten(0, 1)).unflatten(0, features_BVTD.shape[:2])
        if material.frames:
            visual = Visual(Kind.VIDEO, ((),) * material.frames, (size,) * material.frames)
            arranged = [torch.stack(family.arrange(visual, seen_VnE[:, None])) for seen_VnE in seen_BVnE]
            shown_BPE = torch.cat(arranged)
            return shown_BPE, visual, shown_BPE.shape[1] // material.frames
        visual = Visual(Kind.IMAGE, ((),) * len(seen_BVnE), (size,) * len(seen_BVnE))
        return torch.stack(family.arrange(visual, seen_BVnE.unbind(0))), visual, seen_BVnE.shape[2]

    def forward(self, features_BVTD: Tensor, packed: Packed, material: Material) -> tuple[Tensor, Tensor]:
        """The loss; and its parts and the share of answers wholly right as a vector of `FIGURES`."""
        model, count = self.model, len(features_BVTD)
        shown, visual, tokens = self.shown(features_BVTD, material)
        prefix, at_P = self.prefix(shown, visual)
        mask, positions = packed_mask(packed, prefix.shape[1])
        read = model.model.language_model(
            inputs_embeds=torch.cat([prefix, model.get_input_embeddings()(packed.tokens)], 1),
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            output_attentions=True,
            output_hidden_states=True,
            questions=packed.tokens.shape[1],
        )
        hidden = read.last_hidden_state[:, prefix.shape[1] :]
        asked, marked = packed.answers != IGNORED, packed.marks != IGNORED
        scores = model.lm_head(hidden[asked]).float()
        answer_loss = F.cross_entropy(scores, packed.answers[asked])
        mark_loss = F.cross_entropy(model.lm_head(hidden[marked]).float(), packed.marks[marked])
        early_loss = self.early(read, packed, marked)
        cells_Frck = self.cells(at_P, tokens, features_BVTD.shape[1], material)
        where = self.whereabouts(read, packed.whereabouts, cells_Frck)
        first = torch.arange(count, device=asked.device)[:, None] * (QUESTIONS + 1)
        question = (packed.owners + first)[asked]
        wrong = torch.bincount(question[scores.argmax(-1) != packed.answers[asked]], minlength=int(question.max()) + 1)
        right = (wrong[question.unique()] == 0).float().mean()
        loss = answer_loss + 0.5 * (mark_loss + early_loss)
        loss = loss + (where * where.new_tensor(list(WEIGHTS.values()))).sum()
        return loss, torch.stack([answer_loss, mark_loss, early_loss, *where, right]).detach()

    def early(self, read: BaseModelOutputWithPast, packed: Packed, marked: Tensor) -> Tensor:
        """The loss of marks that are known too late for the words behind them.

        What a question mark knows after the last layer no option can be compared with, and what an option knows then
        the answer cannot ask for: so the way of a shape was known and named, but no claim or option about it was
        judged. The question mark has to know after the layer behind that of the places, the options after the next.
        """
        states = read.hidden_states
        length, asks = packed.tokens.shape[1], (packed.tokens == self.mark)[marked][:, None]
        soon, next_ = (states[LAYER + later][:, -length:][marked] for later in (2, 3))
        known = self.model.model.language_model.norm(torch.where(asks, soon, next_))
        return F.cross_entropy(self.model.lm_head(known).float(), packed.marks[marked])

    def cells(self, at_P: Tensor, tokens: int, views: int, material: Material) -> Tensor:
        """Where in the prompt the k tokens of every cell of every frame or of the image stand: int64 (F, r, c, k).

        Tiles show more than the whole beside them, and so stand for the image. `tokens` are a view's, of which there
        are `views`.
        """
        side = round(tokens**0.5)
        if material.frames:
            return at_P[: material.frames * tokens].view(material.frames, side, side, 1)
        if isinstance(self.family[0], OneVision):
            many = isqrt(len(at_P) - tokens)  # of more than nine tiles fewer than they have: they are shrunk
            at_RC = at_P[tokens:].view(many, many + 1)[:, :-1]  # behind the whole, each row with a newline
        elif views > 1:
            many, tiles = material.detail * side, (material.detail, material.detail, side, side)
            at_RC = at_P[: many * many].view(tiles).transpose(1, 2).reshape(many, many)
        else:
            at_RC = at_P.view(side, side)
        rows, finer = min(len(at_RC), GRID), max(len(at_RC) // GRID, 1)
        return at_RC.reshape(rows, finer, rows, finer).transpose(1, 2).flatten(2)[None]


def family_of(model: PreTrainedModel, processor: Any) -> Family:
    """The family around a model in which all but the tower learns."""
    family = FAMILIES[model.config.model_type].open(model, processor)
    model.requires_grad_(True)
    model.model.vision_tower.requires_grad_(False)
    return family


def started(args: argparse.Namespace) -> tuple[PreTrainedModel, Any]:
    """The model that training begins with: as drawn, with another's language model, or gone on with."""
    model, processor = MODELS[args.kind](args.tower, args.layers)
    if args.llava:
        start_language(model, args.llava)
    if args.base:
        tower = model.model.vision_tower.state_dict()
        model = type(model).from_pretrained(args.base, dtype=torch.float32, attn_implementation="eager")
        model.model.vision_tower.load_state_dict(tower)
    return model, processor


def groups(args: argparse.Namespace, lesson: Lesson, accelerator: Accelerator) -> list[Group]:
    """This process's share of the scenes."""
    family, processor = lesson.family[0], lesson.processor
    wanted = [(Material(style, detail), args.images) for detail in args.details for style in STYLES]
    if args.clips:
        wanted += [(Material(style, frames=FRAMES), args.clips) for style in STYLES]
    found, ids = [], processor.tokenizer.get_vocab()
    for material, most in wanted:
        count = min(most, len(material.pixels(args.scenes)))
        mine = slice(accelerator.process_index, count, accelerator.num_processes)
        with accelerator.local_main_process_first():
            # On disk they stay there: of 512 pixels, and of clips, all are more than a laptop's memory.
            seen = held(features(family, args.scenes, material, count)[mine], accelerator.device)
            taught = lessons(args.scenes, material, count, QUESTIONS, ids, cores())[mine]
        with torch.no_grad():
            before, _ = lesson.prefix(*lesson.shown(seen[:1].float(), material)[:2])
        found.append(Group(material, seen, taught, np.empty(0, np.int64), before.shape[1]))
    return found


def aligned(args: argparse.Namespace, family: Family, material: list[Group], accelerator: Accelerator) -> None:
    """Align the projector on ordinary scenes, of which every process has its own."""
    tokens = family.project(material[0].features_NVTD[:1, 0].float()).shape[1]
    chosen = [group for group in material if group.material == Material(group.material.style)]
    parts = [(group.features_NVTD[:, 0], *_labels(args, group, round(tokens**0.5), accelerator)) for group in chosen]
    seen, patch, image = zip(*parts, strict=True)
    rng = np.random.default_rng(args.seed)
    align(family, torch.cat(seen), np.concatenate(patch), np.concatenate(image), args.align, rng)


def _labels(args: argparse.Namespace, group: Group, grid: int, accelerator: Accelerator) -> tuple[Any, Any]:
    with accelerator.local_main_process_first():
        patch, image = view_labels(args.scenes, group.material, len(group.material.pixels(args.scenes)), grid, cores())
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    count = len(group.features_NVTD)
    return patch[mine][:count, 0], image[mine][:count, 0]


def train(args: argparse.Namespace) -> None:
    """Train and write a model's folder with its processor, in float16."""
    accelerator = Accelerator(cpu=args.device == "cpu", mixed_precision="bf16")
    torch.manual_seed(args.seed)
    model, processor = started(args)
    family = family_of(model.to(accelerator.device), processor)
    lesson = Lesson(family, processor).to(accelerator.device)
    material = groups(args, lesson, accelerator)
    if args.llava and not args.base:
        start_projector(model, args.llava, material[0].features_NVTD[:200, 0])
    elif not args.base:
        # The same on every rank but for its scenes; the wrapping below then gives all of them the first rank's result.
        aligned(args, family, material, accelerator)
    trained = [p for p in lesson.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.rate, weight_decay=0.05, betas=(0.9, 0.98))
    lesson, optimizer = accelerator.prepare(lesson, optimizer)
    rng, recent = np.random.default_rng([args.seed, accelerator.process_index]), []
    turns = np.random.default_rng(args.seed)  # every process takes the same kind of scene, so that none waits
    often = np.array([args.clip_weight if group.material.frames else 1.0 for group in material])
    often /= often.sum()
    share, step = args.batch // accelerator.num_processes, 0
    began, spent = time.time(), 0.0
    while spent < 1:
        group = material[int(turns.choice(len(material), p=often))]
        picks = group.draw(group.share(share), rng)
        for settings in optimizer.param_groups:
            settings["lr"] = learning_rate(args.rate, spent)
        seen = group.features_NVTD[torch.from_numpy(picks).to(accelerator.device)].float()
        packed = Packed(*(part.to(accelerator.device) for part in pack(group.lessons_NCQL[picks], rng, group.room)))
        loss, figures = lesson(seen, packed, group.material)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append((figures, group.material.name))
        step += 1
        minutes = (time.time() - began) / 60
        # All ranks must take one view of the clock, or their learning rates and so their weights would part.
        share_spent = torch.tensor(minutes / args.minutes, device=accelerator.device)
        spent = step / args.steps if args.steps else float(broadcast(share_spent))
        if accelerator.is_main_process and (step % 50 == 0 or spent >= 1):
            said = f"step {step}"
            for name in sorted({name for _, name in recent}):
                of_it = [figures for figures, shown in recent if shown == name]
                said += f", {name}: {means(FIGURES, of_it)}"
            recent = []
            print(f"{said}, {minutes:.1f} min", flush=True)
        if accelerator.is_main_process and (step % 100 == 0 or spent >= 1):
            save(model, processor, args.output)
    accelerator.end_training()


def save(model: PreTrainedModel, processor: Any, output: Path) -> None:
    """Write the model in float16 with its processor."""
    save_half(model, output)
    processor.save_pretrained(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(MODELS), nargs="?", default="llava")
    parser.add_argument("--tower", type=Path, default=Path("pretrained/clip/micro"))
    parser.add_argument("--llava", type=Path, help="begin with what this micro LLaVA knows, and align nothing")
    parser.add_argument("--base", type=Path, help="go on from projector and language model of this folder")
    parser.add_argument("--layers", type=int, default=6, help="of the language model; more than in --llava begin idle")
    parser.add_argument("--details", type=int, nargs="+", choices=DETAILS, default=[1], help="of scenes, all as often")
    parser.add_argument("--clips", type=int, default=0, help="moving scenes of each style, at most")
    parser.add_argument("--clip-weight", type=float, default=1.0, help="how often clips, scenes of one detail being 1")
    parser.add_argument("--images", type=int, default=40000, help="scenes of each style and detail, at most")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--steps", type=int, help="so many, however long they take (a machine with other work)")
    parser.add_argument("--align", type=int, default=600, help="steps of the projector alone, first")
    parser.add_argument("--batch", type=int, default=32, help="images of all processes, about six questions each")
    add_device(parser)
    train(parsed(parser, rate=1.5e-3))


if __name__ == "__main__":
    main()
