"""What `lmms-eval --log_samples` wrote of a task, beside what the MLLM itself says of what a codec leaves."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from tests.official_benchmarks import FILES


class Evaluated:
    """The folder that `--output_path` named."""

    def __init__(self, out: Path):
        [results] = out.glob("*results.json")
        told = json.loads(results.read_text())
        self.out, self.results, self.configs = out, told["results"], told["configs"]

    def samples(self, task: str) -> list[dict]:
        """In the order of the questions."""
        [path] = self.out.glob(f"*samples_{task}.jsonl")
        return sorted(map(json.loads, path.read_text().splitlines()), key=lambda sample: sample["doc_id"])

    def answers(self, task: str) -> list[str]:
        """What was said, and scored."""
        found = [sample["filtered_resps"] for sample in self.samples(task)]
        return [one if isinstance(one, str) else one[0] for one in found]

    def expected(self, task: str, mllm, seen: Sequence) -> list[str]:
        """What the MLLM says to the same prompts of what it is shown, `seen[i]` for question i."""
        tokens = mllm.processor.image_token, getattr(mllm.processor, "video_token", None) or "<video>"
        prompts = [sample["input"] for sample in self.samples(task)]
        for token in tokens:
            prompts = [prompt.replace(token, "").strip() for prompt in prompts]
        return mllm.answer(seen, prompts, self.configs[task]["generation_kwargs"].get("max_new_tokens", 128))


def rows_of(root: Path, task: str) -> list[dict]:
    """An official file's questions, in their order."""
    return pq.read_table(root / FILES[task]).to_pylist()


def pictures_of(row: dict) -> list[Image.Image]:
    """What a question of an official file shows."""
    cells = [row[name] for name in ("image_1", "image_2")] if "image_1" in row else row["image"]
    return [Image.open(io.BytesIO(cell["bytes"])) for cell in (cells if isinstance(cells, list) else [cells])]
