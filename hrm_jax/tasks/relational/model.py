"""A trained relational network, ready to answer."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from hrm_jax.compilation import jit
from hrm_jax.models.relational import RelationalConfig, network
from hrm_jax.tasks.relational.data import WorldData

_AT_ONCE = 512  # questions


class RelationalModel:
    """Weights (`params`) with their configuration, and the data that they were trained on.

    `questions` has the texts of all questions, and of all answers.
    """

    def __init__(
        self, config: RelationalConfig, variables: Mapping[str, Any], data: WorldData
    ) -> None:
        self.config, self.data, self.questions = config, data, data.questions
        self.variables = jax.device_put(dict(variables))

    def logits(
        self, inputs: npt.ArrayLike, asked: Sequence[int] | None = None
    ) -> npt.NDArray[np.float32]:
        """Logits [W, Q, A] of the answers to some questions, by number, about all worlds; None asks
        all. Inputs are as for `__call__`."""
        codes = self.questions.codes if asked is None else self.questions.codes[np.array(asked)]
        shown = np.asarray(inputs)
        if shown.shape[1:] != self.data.shape or not len(shown):
            raise ValueError(
                f"inputs: expected the shape [W, {', '.join(map(str, self.data.shape))}] of at "
                f"least one world, got {list(shown.shape)}"
            )
        return logits(self.config, self.variables, shown, codes)

    def __call__(self, inputs: npt.ArrayLike, questions: str | Sequence[str]) -> list[Any]:
        """Answers questions about worlds.

        Args:
            inputs: What the network was trained on: objects [W, N, D] (`Scenes.states`,
                `Families.states`) or images uint8 [W, 75, 75, 3] (`Scenes.images`).
            questions: One of `self.questions.texts`, or several, which are all asked about each
                world.

        Returns:
            For each world the answer as text, or a list of them where there are several questions.

        Raises:
            ValueError: There is no such question (the nearest is named), or the inputs have
                another shape.
        """
        texts = [questions] if isinstance(questions, str) else list(questions)
        found = self.logits(inputs, [self.questions.number(text) for text in texts]).argmax(-1)
        answers = [[self.questions.answers[k] for k in row] for row in found.tolist()]
        return [row[0] for row in answers] if isinstance(questions, str) else answers


@functools.lru_cache(maxsize=32)
def _apply(config: RelationalConfig) -> Any:
    return jit(network(config).apply)


def logits(
    config: RelationalConfig,
    variables: Mapping[str, Any],
    inputs: npt.NDArray[Any],
    codes: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Logits [W, Q, A] of the answers to the questions of these codes [Q, E] about all worlds."""
    size = min(len(inputs), max(1, _AT_ONCE // len(codes)))
    asked = jnp.broadcast_to(codes, (size, *codes.shape))
    found = []
    for first in range(0, len(inputs), size):
        rows = np.arange(first, first + size) % len(inputs)  # the last part is filled up
        found.append(np.asarray(_apply(config)(variables, inputs[rows], asked)))
    return np.concatenate(found)[: len(inputs)]
