"""hrm_jax: reasoning models in JAX.

`hrm_jax.load(workdir)` gives a trained model, `hrm_jax.train(config, workdir)` trains one.
"""

from hrm_jax.experiment import train
from hrm_jax.inference.load import load
from hrm_jax.tasks.puzzle_model import PuzzleModel, Solution

__version__ = "0.1.0"
__all__ = ["PuzzleModel", "Solution", "load", "train"]
