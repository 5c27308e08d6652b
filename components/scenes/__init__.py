"""The embedded world: small images drawn from a scene graph, with questions whose answers are exact."""

from components.scenes.graph import Obj, Scene, sample_scene
from components.scenes.render import object_mask, render

__all__ = ["Obj", "Scene", "object_mask", "render", "sample_scene"]
