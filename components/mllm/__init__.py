"""Hugging Face MLLMs that see through a codec: images enter as pixels and an optional residual on their patches."""

from components.mllm.mllm import FAMILIES, Mllm, load_mllm
from components.mllm.view import View

__all__ = ["FAMILIES", "Mllm", "View", "load_mllm"]
