"""The model that lmms-eval asks: an MLLM and, for every image name, what has arrived of that image.

lmms-eval hands over a question with a document's number; the document holds an image's name. Which picture the MLLM
sees under that name is decided here and nowhere else, so that a score can only come from what went over the wire.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

if TYPE_CHECKING:
    from components.mllm import Mllm, View


class Cotam(lmms):
    """lmms-eval's model interface around `Mllm.answer`. `views` is set anew for every codec and quality."""

    accelerator = None  # one process; lmms-eval would otherwise make an Accelerator

    def __init__(self, mllm: "Mllm"):
        super().__init__()
        self.mllm = mllm
        self.views: Mapping[str, View] = {}

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer every request, greedily, in one batched call."""
        views, prompts, lengths = [], [], set()
        for request in requests:
            prompt, options, doc_to_visual, number, task, split = request.args
            (image,) = doc_to_visual(self.task_dict[task][split][number])
            views.append(self.views[image])
            prompts.append(prompt)
            lengths.add(options["max_new_tokens"])
        (max_new_tokens,) = lengths
        return self.mllm.answer(views, prompts, max_new_tokens=max_new_tokens)

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Not asked by any task here."""
        raise NotImplementedError("The tasks over scenes generate their answers.")

    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Not asked by any task here."""
        raise NotImplementedError("The tasks over scenes have one round.")
