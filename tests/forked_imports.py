"""What `forked` imports before it forks."""

import absl.app  # noqa: F401
import compiled  # noqa: F401
import ml_collections.config_flags  # noqa: F401

import hrm_jax.experiment
import hrm_jax.trained.browse
import hrm_jax.trained.evaluate
import hrm_jax.viz.page  # noqa: F401
