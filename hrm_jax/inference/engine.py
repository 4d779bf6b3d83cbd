"""The name that `hrm_jax.engine` had before; programs that import the engine from here go on."""

from hrm_jax.engine.engine import Engine
from hrm_jax.engine.sampling import Sampling

__all__ = ["Engine", "Sampling"]
