"""Pictures of boards after each ACT step, in one file."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from PIL import Image

from hrm_jax.files import atomic_path
from hrm_jax.puzzles.drawing.pen import WHITE

Path = str | os.PathLike[str]


def save_png(path: Path, pictures: Sequence[Image.Image]) -> pathlib.Path:
    """Writes pictures of one size as a contact sheet with four in a row, atomically.

    Returns:
        `path`.

    Raises:
        OSError: The file cannot be written.
    """
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, rows * height), WHITE)
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k % columns * width, k // columns * height))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
    return pathlib.Path(path)


def save_gif(path: Path, pictures: Sequence[Image.Image], ms_per_frame: int) -> pathlib.Path:
    """Writes pictures of one size as an endless animation, one frame each, atomically.

    Args:
        path: GIF file to write.
        pictures: The frames.
        ms_per_frame: Milliseconds a frame is shown; the last one stays three times as long.

    Returns:
        `path`.

    Raises:
        ValueError: `ms_per_frame` is less than 10, the GIF's unit.
        OSError: The file cannot be written.
    """
    if ms_per_frame < 10:
        raise ValueError(f"ms_per_frame: expected 10 or more, got {ms_per_frame}")
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=[ms_per_frame] * (len(pictures) - 1) + [3 * ms_per_frame],
            loop=0,
        )
    return pathlib.Path(path)
