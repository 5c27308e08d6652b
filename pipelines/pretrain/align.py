"""LLaVA's first stage with the scene graph in place of captions: a projector learns to say what stands in a patch."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.mllm.family import Family
from components.scenes.labels import IMAGE_CLASSES, PATCH_CLASSES, TEXTS
from components.scenes.world import COLOURS, KINDS, SHAPES, SIZES, TEXTURES, TINTS
from pipelines.pretrain.lessons import word_ids

BATCH = 64
LABEL_WORDS = {
    "shape": ("no", *SHAPES),
    "colour": ("no", *COLOURS),
    "texture": ("no", *TEXTURES),
    "size": ("no", *SIZES),
    "covering_shape": ("no", *SHAPES),
    "covering_colour": ("no", *COLOURS),
    "text": ("no", *TEXTS),
    "kind": KINDS,
    "tint": TINTS,
}
"""The words of a patch's labels (components/scenes/labels.py), then of the two that are the whole image's."""


def align(
    family: Family,
    features_NTD: Tensor,
    patch_labels_Nnk: np.ndarray,
    image_labels_Nm: np.ndarray,
    steps: int,
    rng: np.random.Generator,
) -> None:
    """Teach the projector to say what stands in a patch as the words of a language model that knows none yet.

    For each kind of label, its word's embedding must be the one nearest to the projected patch ("no" where there is
    nothing). Without it, a thousand steps of questions pass before the first object is found.

    Args:
        family: whose projector learns.
        features_NTD: of N views.
        patch_labels_Nnk: of what the projector makes of them: of n tokens of each view.
        image_labels_Nm: of the views as wholes.
        steps: of 64 views.
        rng: draws them.
    """
    projector, embed = family.model.model.multi_modal_projector, family.model.get_input_embeddings()
    if not hasattr(projector, "layer_norm"):
        _whiten(family, features_NTD[:2000])
    shown = [list(IMAGE_CLASSES).index(name) for name in list(LABEL_WORDS)[len(PATCH_CLASSES) :]]
    tokens = patch_labels_Nnk.shape[1]
    ids = word_ids()
    device = features_NTD.device
    words = [torch.tensor([ids[word] for word in said], device=device) for said in LABEL_WORDS.values()]
    weights = [
        torch.tensor([0.1 if word == "no" else 1.0 for word in said], device=device) for said in LABEL_WORDS.values()
    ]
    optimizer = torch.optim.Adam([*projector.parameters(), embed.weight], lr=2e-3)
    for step in range(1, steps + 1):
        picks = rng.integers(0, len(features_NTD), BATCH)
        whole_Bnk = np.repeat(image_labels_Nm[picks][:, None, shown], tokens, 1)
        targets = torch.from_numpy(np.concatenate([patch_labels_Nnk[picks], whole_Bnk], 2)).long().to(device)
        seen_ND = family.project(features_NTD[torch.from_numpy(picks).to(device)].float()).flatten(0, 1)
        loss, right = 0.0, []
        for target, word, weight in zip(targets.flatten(0, 1).T, words, weights, strict=True):
            scores = seen_ND @ embed.weight[word].T
            loss = loss + F.cross_entropy(scores, target, weight=weight)
            named = (target > 0) | (weight[0] == 1)
            right.append(float((scores.argmax(-1) == target)[named].float().mean()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            shares = " ".join(f"{name} {share:.2f}" for name, share in zip(LABEL_WORDS, right, strict=True))
            print(f"align {step}/{steps} loss {float(loss.detach()):.3f} {shares}", flush=True)


@torch.no_grad()
def _whiten(family: Family, features_NTD: Tensor) -> None:
    """Start the projector's first layer by bringing all features to one scale."""
    first = family.model.model.multi_modal_projector.linear_1
    selected = family.selected(features_NTD.float())
    mean_D, std_D = selected.mean((0, 1)), selected.std((0, 1))
    first.weight.normal_(0, len(std_D) ** -0.5).div_(std_D)
    first.bias.copy_(-first.weight @ mean_D)
