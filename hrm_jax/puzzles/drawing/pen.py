"""Drawing small boards with smooth edges: everything is drawn twice as large, then shrunk."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import matplotlib
from PIL import Image, ImageDraw, ImageFont

Number = float | int

_SCALE = 2

BLACK, BLUE, RED, GREEN, GREY = "#111111", "#1f5fbf", "#d0021b", "#128a3a", "#b8b8b8"
DIM, WHITE, CHANGED, WRONG = "#777777", "#ffffff", "#ffe9a3", "#ffd3d3"


@functools.cache
def font(bold: bool, pixels: int) -> ImageFont.FreeTypeFont:
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
        (left, top), (right, bottom) = self._points(((x, y), (x + width, y + height)))
        self._draw.rounded_rectangle(
            (left, top, right - 1, bottom - 1),
            radius * _SCALE,
            fill,
            edge,
            round(thick * _SCALE) if edge else 0,
        )

    def line(self, points: Sequence[tuple[Number, Number]], ink: str, thick: Number = 1) -> None:
        """Straight lines from point to point."""
        self._draw.line(self._points(points), ink, round(thick * _SCALE), joint="curve")

    def dot(self, x: Number, y: Number, radius: Number, ink: str) -> None:
        """A filled circle."""
        (left, top), (right, bottom) = self._points(
            ((x - radius, y - radius), (x + radius, y + radius))
        )
        self._draw.ellipse((left, top, right, bottom), ink)

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
        place = self._points(((x, y),))[0]
        self._draw.text(place, text, ink, font(bold, round(pixels * _SCALE)), anchor)

    def _points(self, points: Sequence[tuple[Number, Number]]) -> list[tuple[int, int]]:
        return [(round((self._x + x) * _SCALE), round((self._y + y) * _SCALE)) for x, y in points]
