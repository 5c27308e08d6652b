"""Does the micro MLLM see? Accuracy on held-out scenes, beside what questions alone give away.

    python -m pipelines.pretrain.evaluate_mllm pretrained/mllm/micro-llava

Every family that a scene has facts for is asked once in every form, so that no family or form outweighs another by
chance. The same questions are asked with another scene's image, and a predictor that reads only the question answers
them too: a model that sees is far above both on its own image, and no better than the predictor on another's.
The guidance tower's shallow attention is held against the scene graph's object mask. With --clips, moving scenes are
asked about in the same way.

Writes MLLM.metrics.json beside the model's folder, or to --output: what lies in the folder is hashed as the model.
`GOALS` says what the shipped model has to reach.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from components.evaluation.clips import FRAMES
from components.files import write_json
from components.mllm import Kind, Mllm, Seen, load_mllm, see
from components.progress import track
from components.scenes import Scene, moving, object_mask, render, sample_scene
from components.scenes.graph import NORMAL_SIZE
from components.scenes.moving import Clip, sample_clip
from components.scenes.questions import LETTERS, Fact, Question, choose_fact, facts, phrase
from components.scenes.world import FAMILIES, FORMS, STYLES
from components.vision import Tower, load_tower
from pipelines.pretrain.micro_models import DETAILS

GOALS = {"all": 0.85, "low": 0.90, "high": 0.90, "cross": 0.75, "attention_auc": 0.70}
MARGIN = 0.03
"""How far above the question-only predictor a model may score with another scene's image."""

FIT_SCENES = 4000
BATCH_SCENES = 50


@dataclass(frozen=True)
class Asked:
    """A question of a scene with the answers that were given to it."""

    question: Question
    own_image: str
    other_image: str
    question_only: str


class QuestionOnly:
    """The best answer without an image: the most frequent one among training scenes' questions of the same wording.

    A yes-or-no question goes by its whole claim; a choice by how often each option is the true value. Where a wording
    was never met, its family and form decide.
    """

    def __init__(self, questions: Iterable[Question]):
        self._votes: dict[tuple, Counter] = defaultdict(Counter)
        for question in questions:
            truth = _truth(question)
            for key in self._keys(question):
                self._votes[key][truth] += 1

    def __call__(self, question: Question) -> str:
        """The answer to a question that was not counted."""
        votes = next((self._votes[key] for key in self._keys(question) if key in self._votes), Counter())
        if question.form == "choice":
            return LETTERS[max(range(len(question.options)), key=lambda place: votes[question.options[place]])]
        return votes.most_common(1)[0][0] if votes else "yes"

    @staticmethod
    def _keys(question: Question) -> list[tuple]:
        """From the particular to the general. Short answers and choices are about the same values."""
        if question.form == "yesno":
            return [(question.prompt,), ("yesno", question.family)]
        return [("value", question.subject), ("value", question.family)]


def ask_all(scene: Scene | Clip) -> list[Question]:
    """One fact of every family that the scene or clip has, once in each form (what is yes or no: no short answer)."""
    rng = np.random.default_rng([11, scene.scene.seed if isinstance(scene, Clip) else scene.seed])
    found = moving.facts(scene) if isinstance(scene, Clip) else facts(scene)
    asked = []
    for family in moving.FAMILIES if isinstance(scene, Clip) else FAMILIES:
        candidates = [fact for fact in found if fact.family == family]
        if candidates:
            asked += _in_each_form(candidates, rng, isinstance(scene, Clip))
    return asked


def _in_each_form(candidates: list[Fact], rng: np.random.Generator, of_clip: bool) -> list[Question]:
    yes_or_no = candidates[0].values == ("yes", "no")
    if not of_clip:
        forms = ("yesno",) if yes_or_no else FORMS
        return [phrase(choose_fact(candidates, rng), form, rng) for form in forms]
    forms = [form for form in FORMS if form != "short" or not yes_or_no]
    chosen = [(choose_fact(candidates, rng), form) for form in forms]
    return [
        moving.choice(fact, rng) if form == "choice" else moving.ask(fact, form, rng) for fact, form in chosen
    ]


def examine(mllm: Mllm, scenes: Sequence[Scene | Clip], predictor: QuestionOnly) -> list[Asked]:
    """Ask all questions of all scenes or clips (at least two), about their own pixels and those of the one before."""
    asked = []
    for start in track(range(0, len(scenes), BATCH_SCENES), "Asking"):
        batch = scenes[start : start + BATCH_SCENES]
        seen = _seen(mllm, batch)
        rows = [(question, place) for place, scene in enumerate(batch) for question in ask_all(scene)]
        own = _answers(mllm, [(question, seen[place]) for question, place in rows])
        other = _answers(mllm, [(question, seen[place - 1]) for question, place in rows])
        asked += [
            Asked(question, mine, others, predictor(question))
            for (question, _), mine, others in zip(rows, own, other, strict=True)
        ]
    return asked


def _seen(mllm: Mllm, scenes: Sequence[Scene | Clip]) -> list[Seen]:
    if isinstance(scenes[0], Clip):
        return see(mllm, Kind.VIDEO, [[render(frame) for frame in clip.frames(FRAMES)] for clip in scenes])
    return list(mllm.views([render(scene) for scene in scenes]))


def accuracies(asked: Sequence[Asked]) -> dict:
    """Shares of right answers, in all and by level, family and form; and those of the two controls."""
    return {
        "questions": len(asked),
        "all": _right(asked),
        "level": _by(asked, lambda question: question.level),
        "family": _by(asked, lambda question: question.family),
        "form": _by(asked, lambda question: question.form),
        "other_image": _share(one.other_image == one.question.answer for one in asked),
        "question_only": _share(one.question_only == one.question.answer for one in asked),
    }


def attention_auc(tower: Tower, scenes: Sequence[Scene]) -> float:
    """ROC-AUC, over the pixels of a scene, of the three-layer CLS map against the object mask; mean over scenes.

    Scenes with nothing in them have no AUC and are left out.
    """
    maps_Bhw = tower.cls_attention(tower.geometry.pixels([render(scene) for scene in scenes]))
    aucs = []
    for scene, map_hw in zip(scenes, maps_Bhw.double().numpy(), strict=True):
        mask = object_mask(scene)
        if mask.any():
            cells = scene.side // len(map_hw)
            aucs.append(roc_auc_score(mask.ravel(), np.kron(map_hw, np.ones((cells, cells))).ravel()))
    return float(np.mean(aucs))


def evaluate(
    mllm: Mllm, tower: Tower, scenes: int, split: str = "validation", details: Sequence[int] = (1,), clips: int = 0
) -> dict:
    """All of the above on the first `scenes` scenes of a split in each style, and which goals are reached.

    Ordinary scenes' scores stand under their style, those of more detail under `detail`, detail and style, those of
    the first `clips` clips under `clips` and style.
    """
    metrics: dict = {"scenes": scenes, "split": split}
    for detail in details:
        found = {style: _evaluate(mllm, tower, scenes, split, style, detail) for style in STYLES}
        if detail == 1:
            metrics |= found
        else:
            metrics.setdefault("detail", {})[str(detail)] = found
    if clips:
        metrics["clip_count"] = clips
        metrics["clips"] = {style: _evaluate_clips(mllm, clips, split, style) for style in STYLES}
    return metrics


def _evaluate_clips(mllm: Mllm, clips: int, split: str, style: str) -> dict:
    fit = (sample_clip(seed, "train", style) for seed in range(FIT_SCENES))
    predictor = QuestionOnly(question for clip in fit for question in ask_all(clip))
    scores = accuracies(examine(mllm, [sample_clip(seed, split, style) for seed in range(clips)], predictor))
    scores["goals"] = reached(scores)
    return scores


def _evaluate(mllm: Mllm, tower: Tower, scenes: int, split: str, style: str, detail: int) -> dict:
    def draw(part: str, count: int) -> list[Scene]:
        return [sample_scene(seed, part, style, NORMAL_SIZE * detail, detail) for seed in range(count)]

    predictor = QuestionOnly(question for scene in draw("train", FIT_SCENES) for question in ask_all(scene))
    held_out = draw(split, scenes)
    scores = accuracies(examine(mllm, held_out, predictor))
    scores["attention_auc"] = attention_auc(tower, held_out)
    scores["goals"] = reached(scores)
    return scores


def reached(scores: dict) -> dict[str, bool]:
    """Each goal that the scores are measured by, and whether one style's reach it."""
    values = {**scores, **scores["level"]}
    goals = {name: values[name] >= least for name, least in GOALS.items() if name in values}
    return goals | {"other_image": scores["other_image"] <= scores["question_only"] + MARGIN}


def _truth(question: Question) -> str:
    """The value that a question is about, whatever its form; for yes or no, the answer."""
    return question.options[LETTERS.index(question.answer)] if question.form == "choice" else question.answer


def _answers(mllm: Mllm, pairs: Sequence[tuple[Question, Seen]]) -> list[str]:
    return mllm.answer([seen for _, seen in pairs], [question.prompt for question, _ in pairs])


def _by(asked: Sequence[Asked], key: Callable[[Question], str]) -> dict[str, float]:
    groups: dict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        groups[key(one.question)].append(one)
    return {name: _right(groups[name]) for name in sorted(groups)}


def _right(asked: Sequence[Asked]) -> float:
    return _share(one.own_image == one.question.answer for one in asked)


def _share(hits: Iterable[bool]) -> float:
    return round(float(np.mean(list(hits))), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mllm", type=Path)
    parser.add_argument("--tower", type=Path, default=Path("pretrained/clip/micro"), help="whose attention guides")
    parser.add_argument("--scenes", type=int, default=500, help="of each style")
    details = {"choices": DETAILS, "help": "of the scenes; 1 is ordinary"}
    parser.add_argument("--details", type=int, nargs="+", default=[1], **details)
    parser.add_argument("--clips", type=int, default=0, help="moving scenes of each style (for an MLLM of videos)")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--output", type=Path, help="where to write what was measured (default: MLLM.metrics.json)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    mllm, tower = load_mllm(args.mllm), load_tower(args.tower)
    metrics = evaluate(mllm, tower, args.scenes, args.split, args.details, args.clips)
    write_json(args.output or args.mllm.with_name(f"{args.mllm.name}.metrics.json"), metrics)
    tables = {"": metrics} | {f" detail {detail}": table for detail, table in metrics.get("detail", {}).items()}
    tables |= {" clips": metrics["clips"]} if args.clips else {}
    for style, more, table in ((style, more, table) for more, table in tables.items() for style in STYLES):
        if style not in table:
            continue
        scores = table[style]
        levels = " ".join(f"{name} {value:.3f}" for name, value in scores["level"].items())
        print(
            f"{style}{more}: all {scores['all']:.3f} ({levels}), another image {scores['other_image']:.3f}, "
            f"question only {scores['question_only']:.3f}"
            + (f", attention AUC {scores['attention_auc']:.3f}" if "attention_auc" in scores else "")
        )
        print("  missed: " + (", ".join(name for name, met in scores["goals"].items() if not met) or "nothing"))


if __name__ == "__main__":
    main()
