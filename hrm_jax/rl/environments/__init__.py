"""The environments there are. One more is a file and a line here."""

from __future__ import annotations

import importlib
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
    """The environment of that name.

    Args:
        name: One of `NAMES`; `gymnax:NAME`; `gymnasium:ENV_ID`; or `MODULE:CLASS`, a frozen
            dataclass of one's own.
        **options: Of its own, such as `max_steps`: see its class.

    Raises:
        ConfigError: There is no such environment, or no such option.
        ImportError: A package that it needs is not installed.
    """
    limit = options.get("max_steps")
    if isinstance(limit, int) and limit < 1:
        raise ConfigError(f"{name}.max_steps: expected at least 1, got {limit}")
    library, _, rest = name.partition(":")
    if library == "gymnax" or name in MINATAR:
        return Gymnax(rest or name, **options)
    if library == "gymnasium":
        return Gymnasium(rest, **options)
    kind = _one_s_own(library, rest) if rest else _OURS.get(name)
    if kind is None:
        raise ConfigError(
            f"unknown environment {name!r}; expected one of {', '.join(NAMES)}, or gymnax:NAME, "
            "gymnasium:ENV_ID or MODULE:CLASS"
        )
    return from_mapping(kind, options, name)


def _one_s_own(module: str, name: str) -> type[Environment]:
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ConfigError(f"environment {module}:{name}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Environment)):
        raise ConfigError(
            f"environment {module}:{name}: expected a class derived from "
            f"hrm_jax.rl.environments.Environment, got {kind}"
        )
    return kind
