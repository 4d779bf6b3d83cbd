"""Schedules that nobody has to learn, and what a schedule comes to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Int, Key

from hrm_jax.tasks.infinito.environment import MODES, OBSERVATIONS, Measured, RewardBands

LEARNT, DRAWN, FROZEN = "learnt", "learnt_drawn", "frozen"
"""What has been learnt, by its likeliest actions or drawn as in training; and the control."""

Act = Callable[[Float[Array, "E 6"], RewardBands, Int[Array, ""], Key[Array, " E"]], Array]
"""From observations, the reward's bands, the number of the step and keys, to actions [E]."""

_TEXT, _PHI, _MIXED = range(len(MODES))


def _always(action: int) -> Act:
    return lambda seen, bands, tick, keys: jnp.full(len(seen), action, jnp.int32)


def _random(seen: Array, bands: RewardBands, tick: Array, keys: Array) -> Array:
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, len(MODES)))(keys)


def _in_turn(seen: Array, bands: RewardBands, tick: Array, keys: Array) -> Array:
    return jnp.full(len(seen), tick % len(MODES), jnp.int32)


def _until(share: float) -> Act:
    """Φ where it is below this part of its band, else text."""

    def act(seen: Array, bands: RewardBands, tick: Array, keys: Array) -> Array:
        phi = 10 * seen[:, OBSERVATIONS.index("phi")]
        wanted = bands.phi_low + share * (bands.phi_high - bands.phi_low)
        return jnp.where(phi < wanted, _PHI, _TEXT)

    return act


POLICIES: Mapping[str, Act] = {
    "text": _always(_TEXT),
    "phi": _always(_PHI),
    "mixed": _always(_MIXED),
    "random": _random,
    "round_robin": _in_turn,
    "band_sixth": _until(1 / 6),
    "band_half": _until(1 / 2),
}
"""Always the same; a random one; each in turn; and two controllers written by hand: Φ is trained
where it is below a sixth, or half, of its band, and else text. With `FROZEN`, the control, updates
are computed and thrown away."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What a policy came to in E episodes of T steps.

    Attributes:
        actions: [T, E].
        measured: [T + 1, E], before them and after each.
        seen: Observations before each action [T, E, 6].
        finals: Of what each episode has trained, [E]: held-out perplexity, Φ as it was trained (0
            to 10) and as it is measured (nats), O-information, memory in use.
    """

    name: str
    actions: npt.NDArray[Any]
    measured: Measured
    seen: npt.NDArray[Any]
    finals: Mapping[str, npt.NDArray[Any]]


def row_of(
    name: str,
    actions: npt.NDArray[Any],
    measured: Measured,
    seen: npt.NDArray[Any],
    perplexities: npt.NDArray[Any],
    figures: Sequence[Mapping[str, float]],
) -> Row:
    """A row, of figures of the meter for each episode."""
    finals = {
        "perplexity": perplexities,
        "phi_objective": np.asarray(measured.phi)[-1],
        "phi_meter": np.array([x["eval/phi_meter"] for x in figures]),
        "o_information": np.array([x["eval/o_information"] for x in figures]),
        "memory_use": np.asarray(measured.memory_use)[-1],
    }
    return Row(name, actions, measured, seen, finals)
