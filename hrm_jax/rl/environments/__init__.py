"""The environments there are. One more is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hrm_jax.fields import ConfigError, from_mapping
from hrm_jax.rl.environments.acrobot import Acrobot
from hrm_jax.rl.environments.base import Environment, Timestep, step_autoreset
from hrm_jax.rl.environments.cartpole import CartPole
from hrm_jax.rl.environments.catch import Catch
from hrm_jax.rl.environments.grid_world import GridWorld
from hrm_jax.rl.environments.gymnasium_adapter import Gymnasium
from hrm_jax.rl.environments.gymnax_adapter import MINATAR, Gymnax
from hrm_jax.rl.environments.mountain_car import MountainCar, MountainCarContinuous
from hrm_jax.rl.environments.pendulum import Pendulum
from hrm_jax.rl.environments.probes import PROBES

__all__ = ["NAMES", "Environment", "Timestep", "make", "step_autoreset"]

_KINDS: tuple[type[Environment], ...] = (
    CartPole,
    Pendulum,
    MountainCar,
    MountainCarContinuous,
    Acrobot,
    Catch,
    GridWorld,
    *PROBES,
)
_OURS: Mapping[str, type[Environment]] = {kind.name: kind for kind in _KINDS}

NAMES = (*_OURS, *MINATAR)
"""What `make` knows without a prefix."""


def make(name: str, **options: Any) -> Environment:
    """The environment of that name: one of `NAMES`, `gymnax:NAME` or `gymnasium:ENV_ID`.

    Args:
        name: See above; `NAMES` that end in "-MinAtar" are gymnax's.
        **options: Of its own, such as `max_steps`: see its class.

    Raises:
        ConfigError: There is no such environment, or no such option.
        ImportError: A package that it needs is not installed.
    """
    library, _, rest = name.partition(":")
    if library == "gymnax" or name in MINATAR:
        return Gymnax(rest or name, **options)
    if library == "gymnasium":
        return Gymnasium(rest, **options)
    if name not in _OURS:
        raise ConfigError(
            f"unknown environment {name!r}; expected gymnax:NAME, gymnasium:ENV_ID or one of "
            f"{', '.join(NAMES)}"
        )
    return from_mapping(_OURS[name], options, name)
