"""hrm_jax: reasoning models in JAX.

`hrm_jax.load(workdir)` gives a trained model, `hrm_jax.train(config, workdir)` trains one.
"""

from hrm_jax.experiment import train
from hrm_jax.tasks.puzzles.model import PuzzleModel, Solution
from hrm_jax.trained.load import load

__version__ = "0.1.0"
__all__ = ["PuzzleModel", "Solution", "load", "train"]
