"""Moving scenes: sequences of frames in which shapes move, or come one after another, with questions about both.

A clip is a pure function of (seed, split, style, size), as a scene is; its random numbers are a stream of their own.
In one half of the clips (`motion`) some shapes move along straight lines and the others stand still; in the other
(`arrival`) they stand still and appear one after another. So a single frame does not hold the answer.

    clip = sample_clip(7)
    frames = [render(scene) for scene in clip.frames(16)]
"""

from dataclasses import dataclass, replace

import numpy as np

from components.scenes.graph import MARGIN, NORMAL_SIZE, Obj, Scene, check_drawing, draw_surface
from components.scenes.questions import COUNTS, LETTERS, Fact, Question, choice_prompt, phrase, vocabulary
from components.scenes.styles import STYLES as LOOKS
from components.scenes.world import COLOURS, KINDS, SHAPES, SPLITS, STYLES, TINTS

MOTIONS = ("motion", "arrival")
DIRECTIONS = ("left", "right", "up", "down")
LEVELS = {
    "background": "low",
    "scene": "high",
    "direction": "high",
    "moves": "high",
    "count_moving": "cross",
    "first": "cross",
    "last": "cross",
    "before": "cross",
    "colour": "cross",
}
FAMILIES = tuple(LEVELS)

_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), None: (0, 0)}
_CHECKED = np.linspace(0, 1, 9)  # times at which no two shapes may touch
_STREAM = 20250718


@dataclass(frozen=True)
class Mover:
    """A shape of a clip.

    Attributes:
        obj: as it is at the start.
        direction: in which it moves; None if it stands still.
        distance: how far in all, in pixels.
        comes: when it appears, 0 (it is there from the start) to 1 (the end).
    """

    obj: Obj
    direction: str | None
    distance: float
    comes: float

    def at(self, time: float) -> Obj:
        """Where it is at a time, 0 (start) to 1 (end)."""
        dx, dy = _STEPS[self.direction]
        return replace(
            self.obj, cx=self.obj.cx + dx * self.distance * time, cy=self.obj.cy + dy * self.distance * time
        )


@dataclass(frozen=True)
class Clip:
    """All that can be asked about a sequence of frames, and all that is needed to draw it.

    Attributes:
        scene: the place, without any shape.
        motion: one of `MOTIONS`.
        movers: two to four, of different shapes.
    """

    scene: Scene
    motion: str
    movers: tuple[Mover, ...]

    def frames(self, count: int) -> list[Scene]:
        """The scene at `count` times from start to end, evenly spread; `render` draws each."""
        times = np.linspace(0, 1, count) if count > 1 else [0.0]
        return [
            replace(self.scene, objects=tuple(mover.at(time) for mover in self.movers if mover.comes <= time))
            for time in map(float, times)
        ]

    @property
    def moving(self) -> list[Mover]:
        """Those that move."""
        return [mover for mover in self.movers if mover.direction]


def sample_clip(seed: int, split: str = "train", style: str = "train", size: int = NORMAL_SIZE) -> Clip:
    """Draw the clip of a seed.

    Raises ValueError for an unknown split or style, a negative seed, or a size outside 64..512 pixels.
    """
    check_drawing("clip", seed, split, style, size)
    rng = np.random.default_rng([_STREAM, SPLITS.index(split), STYLES.index(style), seed])
    motion = str(rng.choice(MOTIONS))
    movers: list[Mover] = []
    shapes = rng.permutation(SHAPES)[: int(rng.integers(2, 5))]
    # Appearances lie between the frames of 16, so that all shapes are there for the same frames in 16 and in 32.
    starts = rng.permutation([0.0, 0.23, 0.47, 0.71][: len(shapes)])
    starts = starts if motion == "arrival" else np.zeros(len(shapes))
    for shape, start in zip(map(str, shapes), map(float, starts), strict=True):
        moves = motion == "motion" and rng.random() < 0.65
        if (mover := _mover(rng, shape, size, LOOKS[style], movers, moves, start)) is not None:
            movers.append(mover)
    scene = Scene(
        seed=seed,
        split=split,
        style=style,
        side=size,
        kind=str(rng.choice(KINDS)),
        tint=str(rng.choice(TINTS)),
        objects=(),
        text=None,
        background_seed=int(rng.integers(2**31)),
    )
    return Clip(scene, motion, tuple(movers))


def _mover(rng, shape, size, look, others, moves, start) -> Mover | None:
    """A shape on a path that touches no other's and stays inside; None if there is no room."""
    scale = size / NORMAL_SIZE
    for _ in range(60):
        direction = str(rng.choice(DIRECTIONS)) if moves else None
        diameter = rng.uniform(20, 28) * scale
        distance = rng.uniform(0.35, 0.55) * size if moves else 0.0
        dx, dy = _STEPS[direction]
        half = diameter / 2 + 1
        low = np.array([half - min(0, dx) * distance, half - min(0, dy) * distance])
        high = np.array([size - half - max(0, dx) * distance, size - half - max(0, dy) * distance])
        cx, cy = rng.uniform(low, high)
        obj = Obj(
            shape=shape,
            colour=str(rng.choice(COLOURS)),
            size="large",
            cx=float(cx),
            cy=float(cy),
            diameter=float(diameter),
            **draw_surface(rng, look, scale, least_opacity=0.8),
        )
        mover = Mover(obj, direction, float(distance), start)
        if not any(_touch(mover, other) for other in others):
            return mover
    return None


def _touch(one: Mover, other: Mover) -> bool:
    least = (one.obj.diameter + other.obj.diameter) / 2 + MARGIN
    for time in map(float, _CHECKED):
        a, b = one.at(time), other.at(time)
        if abs(a.cx - b.cx) < least and abs(a.cy - b.cy) < least:
            return True
    return False


def facts(clip: Clip) -> list[Fact]:
    """Everything that can be asked of a clip. A shape's name fits exactly one."""
    found = [
        Fact("background", "what colour is the background ?", "is the background {} ?", clip.scene.tint, TINTS),
        Fact("scene", "what kind of place is this ?", "is this place a {} ?", clip.scene.kind, KINDS),
    ]
    for mover in clip.movers:
        shape = mover.obj.shape
        found.append(
            Fact("colour", f"what colour is the {shape} ?", f"is the {shape} {{}} ?", mover.obj.colour, COLOURS)
        )
    return found + (_of_motion(clip) if clip.motion == "motion" else _of_arrival(clip))


def _of_motion(clip: Clip) -> list[Fact]:
    moving = str(len(clip.moving))
    found = [Fact("count_moving", "how many objects move ?", "is {} the number of objects that move ?", moving, COUNTS)]
    for mover in clip.movers:
        shape = mover.obj.shape
        found.append(_yesno("moves", f"does the {shape} move ?", mover.direction is not None))
        if mover.direction:
            question = f"in which direction does the {shape} move ?"
            found.append(Fact("direction", question, f"does the {shape} move {{}} ?", mover.direction, DIRECTIONS))
    return found


def _of_arrival(clip: Clip) -> list[Fact]:
    order = sorted(clip.movers, key=lambda mover: mover.comes)
    names = tuple(mover.obj.shape for mover in order)
    found = [
        Fact("first", "which object comes first ?", "does the {} come first ?", names[0], SHAPES),
        Fact("last", "which object comes last ?", "does the {} come last ?", names[-1], SHAPES),
    ]
    for earlier, one in enumerate(names):
        for other in names[earlier + 1 :]:
            found.append(_yesno("before", f"does the {one} come before the {other} ?", True))
            found.append(_yesno("before", f"does the {other} come before the {one} ?", False))
    return found if len(names) > 1 else []


def _yesno(family: str, question: str, true: bool) -> Fact:
    return Fact(family, question, "", "yes" if true else "no", ("yes", "no"))


def ask(fact: Fact, form: str, rng: np.random.Generator) -> Question:
    """Put a fact as a question of a form (see `components.scenes.questions.phrase`); yes or no stays yes or no."""
    known = "existence" if fact.values == ("yes", "no") else "colour"  # how `phrase` treats a family
    question = phrase(replace(fact, family=known), form, rng)
    return replace(question, family=fact.family, level=LEVELS[fact.family])


def choice(fact: Fact, rng: np.random.Generator) -> Question:
    """A fact as a choice among options; yes or no becomes one, too, as Video-MME has letters only."""
    if fact.values != ("yes", "no"):
        return ask(fact, "choice", rng)
    options = tuple(fact.values[place] for place in rng.permutation(2))
    answer, prompt = LETTERS[options.index(fact.value)], choice_prompt(fact.question, options)
    return Question(fact.family, LEVELS[fact.family], "choice", prompt, answer, options, fact.question)


_WORDS = "in which direction does move up down how many objects that come comes first last before number of object"


def moving_vocabulary() -> list[str]:
    """Every word of the questions about scenes and clips, and of their answers, sorted."""
    return sorted({*vocabulary(), *_WORDS.split()})
