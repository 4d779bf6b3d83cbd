"""Paths as people write them."""

from __future__ import annotations

import os
import pathlib
import re


def expanded(text: str) -> str:
    """Text with `~` and `~name` where a path begins, alone or after a comma, made a home folder: a
    shell leaves `--workdir=~/run` and what is in quotes as it is."""
    return re.sub(r"(?:^|(?<=,))~[^/,]*", lambda home: os.path.expanduser(home[0]), text)


def path_of(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path that a user means."""
    return pathlib.Path(path).expanduser()
