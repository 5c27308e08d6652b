"""Attention over an image and the questions behind it that computes no more than they need.

Transformers' eager attention gives what each token looks at, which `whereabouts.py` asks for in one layer and of two
heads, and for that writes all of it in float32. What stands before the questions is only causal, so that half of it is
never computed; the rest is the questions', of whose rows alone a mask is looked at. Half the time of a step.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "packed"


def use(language_model: PreTrainedModel, layer: int, heads: int) -> None:
    """Attend so from now on, and say in `layer` what the first `heads` look at; other layers say nothing.

    The model has to be told how many `questions` tokens there are, in its keyword arguments.
    """

    def attend(
        module: nn.Module,
        query_BhSd: Tensor,
        key_BhSd: Tensor,
        value_BhSd: Tensor,
        mask_B1SS: Tensor,
        scaling: float,
        questions: int,
        **_: object,
    ) -> tuple[Tensor, Tensor]:
        before = query_BhSd.shape[2] - questions
        shown = [part[:, :, :before] for part in (query_BhSd, key_BhSd, value_BhSd)]
        asked_BhLd, mask_B1LS = query_BhSd[:, :, before:], mask_B1SS[:, :, before:]
        of_shown = F.scaled_dot_product_attention(*shown, is_causal=True, scale=scaling)
        of_asked = F.scaled_dot_product_attention(asked_BhLd, key_BhSd, value_BhSd, mask_B1LS, scale=scaling)
        looked = query_BhSd.new_zeros(0)  # None would move the layers behind it up
        if module.layer_idx == layer:
            scores_BhLS = scaling * asked_BhLd[:, :heads] @ key_BhSd[:, :heads].transpose(2, 3)
            looked = (scores_BhLS.float() + mask_B1LS).softmax(-1)
        return torch.cat([of_shown, of_asked], 2).transpose(1, 2), looked

    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    language_model.set_attn_implementation(NAME)
