"""Pictures of environments, and the same in characters."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from hrm_jax.rl.environments.base import Environment, Picture, State

PAPER = "#fbfaf7"
INK = "#2f3542"
FAINT = "#c9ccd3"
GROUND = "#ebe8e0"
BLUE, RED, GREEN, YELLOW = "#3a7ca5", "#d1495b", "#5b9a68", "#edae49"
COLOURS = (
    *(BLUE, RED, FAINT, YELLOW, GREEN, INK),
    *("#8f6bb1", "#00798c", "#d17a49", "#9c9c5b"),
)
"""Ten that are told apart."""

Point = Any  # two numbers, in a tuple or an array
Points = Sequence[Point] | npt.NDArray[Any]

_FINER = 3  # drawn larger by this and reduced, so that edges are smooth


class Canvas:
    """A part of the plane, from its corner `low` to its corner `high`, y upwards, on a picture of
    so many pixels; lengths are in the plane's units."""

    def __init__(self, low: Point, high: Point, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width * _FINER, height * _FINER), PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._low, self._high = np.asarray(low), np.asarray(high)
        self._scale = np.array(self._image.size) / (self._high - self._low)

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        x, y = ((np.asarray(points) - self._low) * self._scale).T
        return list(zip(x, self._image.height - y, strict=True))

    def polygon(self, points: Points, colour: str) -> None:
        self._draw.polygon(self._pixels(points), fill=colour)

    def rectangle(self, low: Point, high: Point, colour: str) -> None:
        (left, bottom), (right, top) = self._pixels([low, high])
        self._draw.rectangle((left, top, right, bottom), fill=colour)

    def circle(self, center: Point, radius: float, colour: str) -> None:
        x, y = center
        (left, bottom), (right, top) = self._pixels(
            [(x - radius, y - radius), (x + radius, y + radius)]
        )
        self._draw.ellipse((left, top, right, bottom), fill=colour)

    def line(self, points: Points, colour: str, width: float) -> None:
        """A line with round ends and corners."""
        across = round(width * self._scale[0])
        self._draw.line(self._pixels(points), fill=colour, width=max(1, across))
        for point in points:
            self.circle(point, width / 2, colour)

    def picture(self) -> Picture:
        return np.asarray(self._image.reduce(_FINER))

    def characters(self) -> str:
        """The picture in Braille patterns, at most 48 × 16, a dot where there is more than paper or
        ground."""
        width, height = self._image.size
        columns = min(48, round(32 * width / height))
        rows = round(columns * height / width / 2)
        small = self._image.resize((2 * columns, 4 * rows), Image.Resampling.BOX)
        paper = np.array(Image.new("RGB", (1, 1), PAPER), np.int32)
        dots = np.abs(np.array(small, np.int32) - paper).max(-1) > 24
        # U+2800 and, of a cell of 4 × 2 dots, a bit for each.
        bits = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
        cells = dots.reshape(rows, 4, columns, 2).transpose(0, 2, 1, 3)
        codes = 0x2800 + (cells * bits).sum((2, 3))
        return "\n".join("".join(map(chr, row)) for row in codes)


class Drawn(Environment):
    """An environment that is painted, from which both picture and characters follow."""

    @abc.abstractmethod
    def paint(self, state: State) -> Canvas:
        """Returns the picture of one state."""

    @abc.abstractmethod
    def caption(self, state: State) -> str:
        """What the text says under the picture, in a line."""

    def frame(self, state: State) -> Picture:
        return self.paint(state).picture()

    def text(self, state: State) -> str:
        return f"{self.paint(state).characters()}\n{self.caption(state)}"


def board(colours: Sequence[Sequence[str]] | npt.NDArray[Any], side: int) -> Canvas:
    """Squares of those colours, rows from the top, each with so many pixels to a side."""
    rows, columns = len(colours), len(colours[0])
    canvas = Canvas((0, 0), (columns, rows), columns * side, rows * side)
    for row, line in enumerate(colours):
        for column, colour in enumerate(line):
            low = np.array([column, rows - 1 - row]) + 0.04
            canvas.rectangle(low, low + 0.92, colour)
    return canvas
