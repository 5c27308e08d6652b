"""The columns that lmms-eval's tasks read of a benchmark's files, so that a missing one is named before anything runs.

lmms-eval itself would end in a KeyError of whatever function came upon it first.
"""

from collections.abc import Collection, Mapping

from components.errors import CotamError

_MMBENCH = ("index", "question", "hint", "answer", "A", "B", "C", "D", "category", "L2-category", "source", "split")

OFFICIAL: dict[str, tuple[str, ...]] = {
    "mme": ("question_id", "image", "question", "answer", "category"),
    "pope": ("question_id", "image", "question", "answer", "category"),
    "textvqa_val": ("question_id", "image", "question", "answers"),
    "vqav2_val": ("question_id", "image", "question", "answers", "answer_type"),
    "seedbench": (
        *("question_id", "image", "question", "answer", "data_type"),
        *("choice_a", "choice_b", "choice_c", "choice_d"),
    ),
    "mmbench_en_dev": (*_MMBENCH, "image"),
    "mmbench_en_dev_static": (*_MMBENCH, "image"),
    "mmmu_val": ("id", "question", "options", "answer", "question_type", *(f"image_{n}" for n in range(1, 8))),
    "videomme": (
        *("videoID", "question_id", "question", "options", "answer"),
        *("duration", "domain", "sub_category", "task_type"),
    ),
}
"""Per lmms-eval task: what its functions read, as its authors publish the files."""

_SCENES = ("id", "image", "prompt", "family", "level")

SCENES: dict[str, tuple[str, ...]] = {
    "mme": (*_SCENES, "question_id", "answer", "category"),
    "pope": (*_SCENES, "question_id", "answer", "category"),
    "vqav2": (*_SCENES, "question_id", "answers", "answer_type", "multiple_choice_answer"),
    "textvqa": (*_SCENES, "question_id", "answers"),
    "seedbench": (
        *(*_SCENES, "question_id", "answer", "data_type"),
        *("choice_a", "choice_b", "choice_c", "choice_d"),
    ),
    "mmbench": (*_SCENES, *_MMBENCH),
    "mmmu": (*(name for name in OFFICIAL["mmmu_val"] if name < "image_4" or name > "image_7"), "prompt"),
    "videomme": (*OFFICIAL["videomme"], "prompt", "family", "level"),
}
"""Per benchmark over scenes: what its task and our summaries read."""


def check_columns(name: str, found: Collection[str], required: Collection[str], what_to_do: str) -> None:
    """Raise CotamError, naming the benchmark and the first column that is not there."""
    missing = [column for column in required if column not in found]
    if missing:
        raise CotamError(f"The benchmark {name} has no column {missing[0]!r}; {what_to_do}.")


class CheckedTasks(dict):
    """Task name -> its data by split, as lmms-eval hands them to a model; what it knows it checks on the way in."""

    def __setitem__(self, name: str, splits: Mapping) -> None:
        """Raises CotamError: a split lacks a column that the task reads."""
        scenes = name.removeprefix("scenes_")
        required = SCENES.get(scenes) if scenes != name else OFFICIAL.get(name)
        remedy = "make it again with `dvc repro benchmarks`" if scenes != name else "fetch its files again"
        for split in splits.values() if required else ():
            check_columns(name, split.column_names, required, remedy)
        super().__setitem__(name, splits)
