"""Hugging Face MLLMs that see through a codec: images enter as pixels with what a method adds to them."""

from components.mllm.loading import FAMILIES, load_mllm
from components.mllm.mllm import Mllm
from components.mllm.seeing import see
from components.mllm.view import Entry, View
from components.mllm.visual import Kind, Seen, Visual

__all__ = ["FAMILIES", "Entry", "Kind", "Mllm", "Seen", "View", "Visual", "load_mllm", "see"]
