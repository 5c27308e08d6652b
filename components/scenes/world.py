"""The words of the embedded world: what can stand in a scene, and which question family reads which level.

Everything that can be named is named here once; the graph draws from these lists, the renderer draws what they name,
and captions, questions and patch labels speak of them. The levels are those of the paper's section 2: `low` is read
from local structure, `high` from the scene as a whole, and `cross` needs small details put together.
"""

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white", "black")
TEXTURES = ("plain", "striped", "dotted", "checked")
SIZES = ("small", "large")
KINDS = ("forest", "sea", "city", "sky", "desert")
TINTS = ("grey", "green", "blue", "brown", "pink")
DIGITS = tuple("0123456789")
WORDS = ("ant", "bus", "cup", "dog", "egg", "fox", "hat", "ink", "jar", "key", "sun", "zoo")
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
SIDES = ("left", "right", "above", "below")
MAX_COUNT = 4

PLURALS = {shape: ("crosses" if shape == "cross" else shape + "s") for shape in SHAPES}

LEVELS = {
    "digit": "low",
    "word": "low",
    "background": "low",
    "scene": "high",
    "existence": "high",
    "position": "high",
    "count_shape": "cross",
    "count_colour": "cross",
    "colour": "cross",
    "size": "cross",
    "texture": "cross",
    "relation": "cross",
}
FAMILIES = tuple(LEVELS)
FORMS = ("short", "yesno", "choice")
SPLITS = ("train", "validation", "test")
STYLES = ("train", "bench")
