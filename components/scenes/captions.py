"""One sentence about a scene, for contrastive training of the CLIP tower."""

import numpy as np

from components.scenes.graph import Scene, quarter


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Name the place, its colour, the text if any and every object, in an order drawn from `rng`; lower case words."""
    words = [f"a {scene.tint} {scene.kind}"]
    if scene.text:
        words.append(f"the {'number' if scene.text.kind == 'digit' else 'word'} {scene.text.value}")
    things = [
        f"a {obj.size} {obj.texture} {obj.colour} {obj.shape} at {quarter(obj, scene.side)}" for obj in scene.objects
    ]
    rng.shuffle(things)
    return " with ".join([words[0], " and ".join(words[1:] + things)])
