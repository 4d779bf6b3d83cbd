"""Drawing small boards with smooth edges: everything is drawn twice as large, then shrunk."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import matplotlib
from PIL import Image, ImageDraw, ImageFont

Number = float | int
Point = tuple[Number, Number]

_SCALE = 2

BLACK, BLUE, RED, GREEN, GREY = "#111111", "#1f5fbf", "#d0021b", "#128a3a", "#b8b8b8"
DIM, WHITE, CHANGED, WRONG = "#777777", "#ffffff", "#ffe9a3", "#ffd3d3"


@functools.cache
def _font(bold: bool, pixels: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", pixels)


class Pen:
    """Draws on an image of `width` × `height` pixels; all lengths are in pixels, y runs down."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), WHITE)
        self._draw = ImageDraw.Draw(self._image)
        self._x = self._y = 0.0

    def at(self, x: Number, y: Number) -> Pen:
        """A pen on the same image whose origin lies at (x, y) of this one."""
        pen = object.__new__(Pen)
        pen._image, pen._draw = self._image, self._draw
        pen._x, pen._y = self._x + x, self._y + y
        return pen

    def image(self) -> Image.Image:
        """What was drawn, in its true size."""
        size = (self._image.width // _SCALE, self._image.height // _SCALE)
        return self._image.resize(size, Image.Resampling.BOX)

    def box(
        self,
        x: Number,
        y: Number,
        width: Number,
        height: Number,
        fill: str | None = None,
        edge: str | None = None,
        thick: Number = 1,
        radius: Number = 0,
    ) -> None:
        """A rectangle, filled or with an edge inside it or both."""
        left, top, right, bottom = self._places((x, y), (x + width, y + height))
        corners, thick = (left, top, right - 1, bottom - 1), round(thick * _SCALE)
        self._draw.rounded_rectangle(corners, radius * _SCALE, fill, edge, thick if edge else 0)

    def line(self, points: Sequence[Point], ink: str, thick: Number = 1) -> None:
        """Straight lines from point to point."""
        self._draw.line(self._places(*points), ink, round(thick * _SCALE), joint="curve")

    def dot(self, x: Number, y: Number, radius: Number, ink: str) -> None:
        """A filled circle."""
        corners = (x - radius, y - radius), (x + radius, y + radius)
        self._draw.ellipse(self._places(*corners), ink)

    def text(
        self,
        x: Number,
        y: Number,
        text: str,
        pixels: Number = 13,
        ink: str = BLACK,
        bold: bool = False,
        anchor: str = "la",
    ) -> None:
        """A line of text; `anchor` as in Pillow, "la" for the top left, "mm" for the middle."""
        left, top = self._places((x, y))
        self._draw.text((left, top), text, ink, _font(bold, round(pixels * _SCALE)), anchor)

    def _places(self, *points: Point) -> list[int]:
        """Points as x, y, x, y, … on the large image."""
        return [
            round((at + by) * _SCALE) for x, y in points for at, by in ((self._x, x), (self._y, y))
        ]
