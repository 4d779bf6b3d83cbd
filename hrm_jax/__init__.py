"""hrm_jax: reasoning models in JAX.

`hrm_jax.load(workdir)` gives a trained model, `hrm_jax.train(config, workdir)` trains one,
`hrm_jax.pretrained("spanish-gpt2")` gives the one that comes with the package.
"""

from hrm_jax.experiment import train
from hrm_jax.tasks.puzzles.model import PuzzleModel, Solution
from hrm_jax.trained.load import load
from hrm_jax.trained.pretrained import pretrained

__version__ = "0.1.0"
__all__ = ["PuzzleModel", "Solution", "load", "pretrained", "train"]
