"""What a frozen tower makes of scenes, computed once and kept beside them."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from components.files import atomic_file
from components.mllm.family import Family
from components.mllm.visual import Kind
from components.progress import track
from pipelines.pretrain.material import Material

VIEWS_AT_ONCE, VIEWS_ON_GPU = 50, 1000


@torch.no_grad()
def features(family: Family, folder: Path, material: Material, count: int) -> np.ndarray:
    """The states that the MLLM reads of the views of the first `count` scenes, CLS included: float16 (N, V, T, D).

    The views of a clip are its frames.
    """
    device = next(family.tower.model.parameters()).device
    what = f"{type(family).__name__.lower()}-{_digest(family)}-{device.type}.features"  # bfloat16 rounds its own way
    path = material.made_of(folder, what, __name__, ".npy")
    if path.exists() and len(kept := np.load(path, mmap_mode="r")) >= count:
        return kept[:count]
    kind = Kind.VIDEO if material.frames else Kind.IMAGE
    images, framing = material.pixels(folder), family.framing(kind, (material.size, material.size))
    tower, layer, kept = family.tower, family.tower.feature_layer, None
    at_once = max((VIEWS_AT_ONCE if device.type == "cpu" else VIEWS_ON_GPU) // material.views, 1)
    tower.bf16 = True
    with atomic_file(path) as temporary:
        for start in track(range(0, count, at_once), f"features of {material.name}"):
            shown = torch.from_numpy(np.array(images[start : min(start + at_once, count)])).to(device)
            views_PV3hw = framing.pixels(shown.flatten(0, -4).permute(0, 3, 1, 2))  # of pictures: scenes, or frames
            states = tower.hidden_states(tower.patch_embed(views_PV3hw.flatten(0, 1)), {layer})[layer]
            found = states.unflatten(0, (len(shown), -1)).half().cpu().numpy()
            if kept is None:  # on disk at once: many scenes of many views are more than some memories
                kept = np.lib.format.open_memmap(temporary, "w+", np.float16, (count, *found.shape[1:]))
            kept[start : start + len(found)] = found
        del kept
    tower.bf16 = False
    return np.load(path, mmap_mode="r")


def _digest(family: Family) -> str:
    """Of the tower's weights: another tower has other features."""
    digest = hashlib.sha256()
    for name, value in sorted(family.tower.model.state_dict().items()):
        digest.update(name.encode() + value.half().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]
