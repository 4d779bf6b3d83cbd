"""Episodes as moving pictures."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import numpy as np
from PIL import Image

from hrm_jax.files import atomic_path


def write_gif(
    path: str | os.PathLike[str], policy: Any, seed: int = 0, max_steps: int = 500
) -> bool:
    """Draws an episode of a policy (an object with `watch` and an `environment`), atomically, 25
    pictures a second, one for each second step; returns whether the environment has pictures."""
    draw = policy.environment.frame
    pictures = []
    for number, moment in enumerate(policy.watch(seed, max_steps)):
        if number % 2 == 0 or moment.ended:
            picture = draw(jax.tree.map(np.asarray, moment.state))
            if picture is None:
                return False
            pictures.append(Image.fromarray(picture))
    path = pathlib.Path(path)
    with atomic_path(path) as temporary:
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=40, loop=0)
    return True
