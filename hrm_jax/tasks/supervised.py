"""The training step of tasks that are a loss over independent rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from hrm_jax.optim.build import OptimizerConfig, build_optimizer, learning_rate
from hrm_jax.tasks.base import Metrics, State, over_microbatches, pair

RowLoss = Callable[[Any, Any, PRNGKeyArray, Array], tuple[Array, Metrics]]
"""From parameters, rows of a batch, a key and the step: to the loss, summed over what it is to be
an average of, and metrics, among them "loss": that sum and its count."""


@dataclasses.dataclass(frozen=True)
class SupervisedTrainer:
    """Initial state and step of a task that is a loss over rows.

    Attributes:
        optimizer: How parameters are updated.
        total_steps: Length of the run, for the schedules.
        loss: The loss.
        microbatch_size: Rows whose gradient is computed at a time; 0 for all. The loss then sees
            no more rows than that at once.
    """

    optimizer: OptimizerConfig
    total_steps: int
    loss: RowLoss
    microbatch_size: int = 0

    def init(self, key: PRNGKeyArray, params: Any) -> State:
        """A state at step 0 with a copy of the given parameters."""
        params = jax.tree.map(jnp.copy, params)  # the loop donates its state
        average = {"params": jax.tree.map(jnp.copy, params)} if self.optimizer.ema else None
        return State(
            step=jnp.int32(0),
            params=params,
            opt_state=build_optimizer(self.optimizer, self.total_steps).init(params),
            key=key,
            ema=average,
        )

    def step(self, state: State, batch: Any) -> tuple[State, Metrics]:
        """One optimizer step on the mean loss of a batch (a mapping of arrays [B, …])."""
        key = jax.random.fold_in(state.key, state.step)
        rows = jax.tree.leaves(batch)[0].shape[0]

        def part(numbered: tuple[Any, Array]) -> tuple[Any, Any]:
            rows, numbers = numbered
            part_key = jax.random.fold_in(key, numbers[0])
            gradient = jax.grad(self.loss, has_aux=True)
            return gradient(state.params, rows, part_key, state.step), ()

        (grads, metrics), _ = over_microbatches(
            part, (batch, jnp.arange(rows)), self.microbatch_size
        )
        grads = jax.tree.map(lambda g: g / jnp.maximum(metrics["loss"][1], 1), grads)
        state, updates = apply_gradients(state, grads, self.optimizer, self.total_steps)
        return state, {**jax.lax.stop_gradient(metrics), **updates}


def apply_gradients(
    state: State, grads: Any, rule: OptimizerConfig, total_steps: int
) -> tuple[State, Metrics]:
    """Updates the parameters, their average and the number of steps.

    Args:
        state: Where the run stands.
        grads: Gradient with respect to `state.params`.
        rule: How parameters are updated.
        total_steps: Length of the run.

    Returns:
        The new state, and what to report of the update.
    """
    updates, opt_state = build_optimizer(rule, total_steps).update(
        grads, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        ema = optax.incremental_update({"params": params}, ema, 1 - rule.ema)
    rate = learning_rate(rule, total_steps, rule.learning_rate)(state.step)
    metrics = {"grad_norm": pair(optax.global_norm(grads), 1), "learning_rate": pair(rate, 1)}
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state, ema=ema), metrics
