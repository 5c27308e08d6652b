"""The LLaVA family: one CLIP tower, one hidden state of it, a two-layer projector (`LlavaForConditionalGeneration`).

The shipped micro-llava and llava-hf/llava-1.5-7b-hf run through these same lines.
"""

from transformers import LlavaForConditionalGeneration

from components.mllm.family import Family
from components.mllm.visual import Kind


class Llava(Family):
    """An image is one view, and so is each of several images. LLaVA-1.5 was shown no videos.

    What `embed` gives equals transformers' `get_image_features` bit for bit where no view has a residual.
    """

    model_class = LlavaForConditionalGeneration
    kinds = (Kind.IMAGE, Kind.IMAGES)
