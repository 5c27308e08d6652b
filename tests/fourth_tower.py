"""A fourth family of towers, written as docs/mllms.md says and registered as it says, for tests alone."""

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.paths import ROOT
from components.vision.registry import FAMILIES, TOWERS
from tests.towers import WIDTH, processor_of, write_folder

_BLOCK = re.compile(r"^Write `components/vision/(\w+)\.py`[^\n]*:\n\n```python\n(.*?)^```$", re.M | re.S)
_LINE = re.compile(r'^    "(\w+)": (\w+),$', re.M)


@contextmanager
def fourth_family(work: Path) -> Iterator[str]:
    """Have the page's tower in the registry; its `model_type`."""
    page = (ROOT / "docs/mllms.md").read_text(encoding="utf-8")
    block = _BLOCK.search(page)
    kind, name = _LINE.search(page, block.end()).groups()
    file = work / f"{block[1]}.py"
    file.write_text(block[2], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"fourth_{block[1]}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    FAMILIES[kind] = getattr(module, name)
    TOWERS[kind] = FAMILIES[kind].open
    try:
        yield kind
    finally:
        del FAMILIES[kind], TOWERS[kind]


def vit_folder(folder: Path, layers: int = 9) -> Path:
    """A random `ViTModel`: CLS, 7 x 7 patches."""
    import torch
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        image_size=56,
        patch_size=8,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return write_folder(ViTModel(config), folder, processor_of("ViTImageProcessor", 56, square=True))
