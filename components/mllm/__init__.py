"""Hugging Face MLLMs that see through a codec: images enter as pixels with what a method adds to them."""

from components.mllm.mllm import FAMILIES, Mllm, load_mllm
from components.mllm.view import Entry, View

__all__ = ["FAMILIES", "Entry", "Mllm", "View", "load_mllm"]
