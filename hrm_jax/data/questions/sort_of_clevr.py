"""Sort-of-CLEVR: six coloured squares and circles, and questions about one of them or several.

Sizes and questions are those of the public programs that follow the paper. Unlike theirs, objects
never overlap, none lies on a middle line, and no answer hangs on a tie.

References:
    Santoro et al., A simple neural network module for relational reasoning
    (https://arxiv.org/abs/1706.01427), §3.1; sizes of
    https://github.com/kimhc6028/relational-networks.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

from hrm_jax.data.questions.base import Array, Questions, Worlds, draw_until, held_out_by, reordered

SIDE = 75  # pixels of an image
RADIUS = 5  # pixels from the middle of an object to its edge
COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "orange": (255, 156, 0),
    "gray": (128, 128, 128),
    "yellow": (255, 255, 0),
}
SHAPES = ("square", "circle")
_OBJECTS = len(COLOURS)
_ASKED = {  # the first three about one object, the others about several
    "shape": "What is the shape of the {} object?",
    "left": "Is the {} object on the left?",
    "top": "Is the {} object at the top?",
    "closest": "What is the shape of the object closest to the {} object?",
    "furthest": "What is the shape of the object furthest from the {} object?",
    "count": "How many objects have the shape of the {} object?",
}
_ANSWERS = ("yes", "no", *SHAPES, *"123456")


@dataclasses.dataclass(frozen=True)
class Scenes(Worlds):
    """Images, before they are drawn; object k has the k-th colour.

    Attributes:
        places: x and y of the middles in pixels, y runs down, int16 [W, 6, 2].
        shapes: Numbers of `SHAPES`, int8 [W, 6].
    """

    places: Array
    shapes: Array

    def answers(self) -> npt.NDArray[np.int32]:
        x, y = np.moveaxis(self.places < SIDE / 2, 2, 0)
        shapes = _ANSWERS.index(SHAPES[0]) + self.shapes.astype(np.int32)
        far = _distances(self.places)
        near = far + np.where(np.eye(_OBJECTS, dtype=bool), 2 * SIDE**2, 0)
        same = (self.shapes[:, :, None] == self.shapes[:, None]).sum(2)
        found = (
            shapes,
            np.where(x, _ANSWERS.index("yes"), _ANSWERS.index("no")),
            np.where(y, _ANSWERS.index("yes"), _ANSWERS.index("no")),
            np.take_along_axis(shapes, near.argmin(2), axis=1),
            np.take_along_axis(shapes, far.argmax(2), axis=1),
            _ANSWERS.index("1") + same - 1,
        )
        return np.concatenate(found, axis=1).astype(np.int32)

    def lines(self, world: int) -> list[str]:
        objects = zip(COLOURS, self.shapes[world], self.places[world].tolist(), strict=True)
        return [f"{colour} {SHAPES[shape]} at x={x}, y={y}" for colour, shape, (x, y) in objects]

    def states(self) -> npt.NDArray[np.float32]:
        """A vector for each object, [W, 6, 10]: x and y from the middle of the
        image in widths of an object, its colour and its shape."""
        shown = (
            (self.places - SIDE // 2) / (2 * RADIUS + 1),
            np.broadcast_to(np.eye(_OBJECTS), (len(self), _OBJECTS, _OBJECTS)),
            np.eye(len(SHAPES))[self.shapes],
        )
        objects = np.concatenate(shown, axis=2).astype(np.float32)
        return reordered(objects, self.order)

    def images(self) -> npt.NDArray[np.uint8]:
        """Images on white, [W, 75, 75, 3]."""
        images = np.full((len(self), SIDE, SIDE, 3), 255, np.uint8)
        span = np.arange(-RADIUS, RADIUS + 1)
        circle = span[:, None] ** 2 + span**2 < (RADIUS + 0.5) ** 2
        for k, colour in enumerate(COLOURS.values()):
            filled = circle | (self.shapes[:, k] == 0)[:, None, None]
            row, down, right = np.nonzero(filled)
            x, y = self.places[row, k].T
            images[row, y + span[down], x + span[right]] = colour
        return images


@functools.cache
def questions() -> Questions:
    """The 36 questions: each kind about each colour. Their codes have 11 bits: six for the colour,
    two for one object or several, three for the kind among those."""
    kind, colour = np.divmod(np.arange(len(_ASKED) * _OBJECTS), _OBJECTS)
    parts = ((colour, _OBJECTS), (kind // 3, 2), (kind % 3, 3))
    return Questions(
        texts=tuple(text.format(name) for text in _ASKED.values() for name in COLOURS),
        kinds=tuple(name for name in _ASKED for _ in COLOURS),
        codes=np.concatenate([np.eye(size, dtype=np.float32)[x] for x, size in parts], axis=1),
        relational=kind >= 3,
        answers=_ANSWERS,
    )


def draw_scenes(
    count: int, random: np.random.Generator, *, held_out: bool, shuffled: bool
) -> Scenes:
    """Draws scenes of one part; `shuffled` is whether objects come in any order, or by colour."""

    def draw(tried: int) -> Scenes:
        # 64 places: the object within the image, and no middle on a middle line.
        free = random.integers(0, SIDE - 2 * RADIUS - 1, (tried, _OBJECTS, 2), np.int16)
        places = RADIUS + free + (free >= SIDE // 2 - RADIUS)
        shapes = random.integers(0, len(SHAPES), (tried, _OBJECTS), np.int8)
        order = np.tile(np.arange(_OBJECTS, dtype=np.int8), (tried, 1))
        if shuffled:
            order = random.permuted(order, axis=1)
        good = ~_overlap(places) & ~_tie(places)
        good &= held_out_by(np.concatenate([places.reshape(tried, -1), shapes], axis=1)) == held_out
        return Scenes(order=order, places=places, shapes=shapes)[good]

    return draw_until(count, draw)


def _distances(places: Array) -> npt.NDArray[np.int32]:
    """Squared distances of all pairs, [W, 6, 6]."""
    apart = places[:, :, None].astype(np.int32) - places[:, None]
    return (apart**2).sum(3)


def _overlap(places: Array) -> npt.NDArray[np.bool_]:
    """Whether any two squares around the objects have a pixel in common, [W]."""
    first, second = np.triu_indices(_OBJECTS, 1)
    apart = np.abs(places[:, first] - places[:, second]).max(2)
    return (apart <= 2 * RADIUS).any(1)


def _tie(places: Array) -> npt.NDArray[np.bool_]:
    """Whether two objects are equally close to another one, or equally far from it, [W]."""
    ranked = np.sort(_distances(places), axis=2)  # the first is the object itself
    return ((ranked[..., 1] == ranked[..., 2]) | (ranked[..., -1] == ranked[..., -2])).any(1)
