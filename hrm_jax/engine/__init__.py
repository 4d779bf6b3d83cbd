"""Language models that write: continuous batching of many requests."""

from hrm_jax.engine.engine import Engine
from hrm_jax.engine.sampling import Sampling

__all__ = ["Engine", "Sampling"]
