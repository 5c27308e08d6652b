"""The labels of Bridge's surrogate loss in the embedded world: what place a scene is, in the words of a CLIP.

A class is a kind of place and the colour of its background ("a blue forest"). As Kao et al. average a class's text
embedding over prompts (CLIP's zero-shot classifier), here it is the mean over captions of scenes of that class.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from components.errors import CotamError
from components.scenes import Scene
from components.scenes.captions import caption
from components.scenes.world import KINDS, TINTS
from components.vision import ClipTower

CLASSES = tuple((kind, tint) for kind in KINDS for tint in TINTS)
PROMPTS = 16  # captions per class


def class_of(scene: Scene) -> int:
    """Number of a scene's class in `CLASSES`."""
    return CLASSES.index((scene.kind, scene.tint))


class SceneClasses:
    """The text embeddings of `CLASSES`, and the image embedding that belongs to them.

    Attributes:
        classes_KE: float32, of length 1 each.
        scale: what the CLIP multiplies cosines by.
    """

    def __init__(self, clip: Path, scenes: Sequence[Scene], seed: int):
        """Read the texts of a CLIP with a tokenizer in `clip`; captions are made of some of `scenes`.

        Raises:
            CotamError: the folder is no CLIP with a text side.
        """
        if not any((clip / name).exists() for name in ("tokenizer.json", "vocab.json")):
            raise CotamError(f"{clip} holds no tokenizer, so its CLIP cannot read labels.")  # transformers makes one up
        try:
            model = CLIPModel.from_pretrained(clip, dtype=torch.float32, use_safetensors=True)
            model.eval().requires_grad_(False)
            tokenizer = AutoTokenizer.from_pretrained(clip)
        except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
            raise CotamError(f"{clip} holds no CLIP with a text side ({error}).") from None
        self.scale = float(model.logit_scale.exp())
        self._vision = model.vision_model
        self._projection = model.visual_projection
        random = np.random.default_rng(seed)
        classes = []
        for kind, tint in CLASSES:
            chosen = random.choice(len(scenes), min(PROMPTS, len(scenes)), replace=False)
            texts = [caption(dataclasses.replace(scenes[place], kind=kind, tint=tint), random) for place in chosen]
            longest = model.config.text_config.max_position_embeddings
            tokens = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            with torch.no_grad():
                read = model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
                texts_PE = F.normalize(model.text_projection(read.pooler_output), dim=1)
            classes.append(F.normalize(texts_PE.mean(0), dim=0))
        self.classes_KE = torch.stack(classes)

    def to(self, device: torch.device) -> "SceneClasses":
        """On another device, in place."""
        self.classes_KE = self.classes_KE.to(device)
        self._vision, self._projection = self._vision.to(device), self._projection.to(device)
        return self

    def belongs_to(self, tower: ClipTower) -> bool:
        """Whether `tower` is this CLIP's image side, so that its class token can be compared with these texts."""
        mine, theirs = self._vision, tower.model
        if tower.layers != len(mine.encoder.layers) or tower.width != mine.config.hidden_size:
            return False
        pairs = (
            (mine.embeddings.patch_embedding.weight, theirs.embeddings.patch_embedding.weight),
            (mine.encoder.layers[-1].self_attn.q_proj.weight, theirs.encoder.layers[-1].self_attn.q_proj.weight),
        )
        return all(a.shape == b.shape and torch.equal(a, b.to(a)) for a, b in pairs)

    def embed(self, last_BTD: Tensor) -> Tensor:
        """The image embedding (B, E) of the tower's states after its last layer, CLS first."""
        return self._projection(self._vision.post_layernorm(last_BTD[:, 0]))
