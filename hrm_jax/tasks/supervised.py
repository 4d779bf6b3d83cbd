"""The training step of tasks that are a loss over the rows of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from hrm_jax.optim.build import OptimizerConfig, build_optimizer, learning_rate
from hrm_jax.optim.sign_sgd import sparse_sign_sgd
from hrm_jax.tasks.base import Metrics, State, pair


class Carry(NamedTuple):
    """What a loss is handed from the step before, and hands on: of each row of the batch, arrays
    [B, …], and of all of them together; that is handed from microbatch to microbatch too."""

    rows: Any = None
    rest: Any = None


Loss = Callable[
    [Mapping[str, Any], Any, Carry, PRNGKeyArray, Array], tuple[Array, tuple[Carry, Metrics]]
]
"""From variables, a batch (arrays [B, …]), what is carried, a key and the step: to the loss, summed
over what it is to be an average of; to what is carried on; and to metrics, among them "loss": that
sum and its count. Variables are `params`, `tables`, `frozen`, and `rows`: for each table the rows
that the batch reads, by its name, which alone have a gradient."""


@dataclasses.dataclass(frozen=True)
class SparseTable:
    """How a table is read and updated: by sign-SGD on the rows that a batch reads.

    `identifiers` turns a batch and what its rows carry into the rows that they read [B]. The
    learning rate is a peak; its schedule is that of the parameters.
    """

    identifiers: Callable[[Any, Any], Int[Array, " B"]]
    learning_rate: float
    weight_decay: float


class Gradients(NamedTuple):
    """Gradients of the mean loss with respect to the parameters and the rows that were read, by
    table, [B, D] each; and what came with them."""

    params: Any
    tables: Mapping[str, Array]
    carry: Carry
    metrics: Metrics


@dataclasses.dataclass(frozen=True)
class SupervisedTrainer:
    """Initial state and step of a task that is a loss over rows, in a run of `total_steps`.

    The loss sees no more than `microbatch_size` rows at once; 0 for all.
    """

    optimizer: OptimizerConfig
    total_steps: int
    loss: Loss
    microbatch_size: int = 0
    tables: Mapping[str, SparseTable] = dataclasses.field(default_factory=dict)

    def init(self, key: PRNGKeyArray, params: Any, **fields: Any) -> State:
        """A state at step 0 with copies of the given parameters and other fields of `State`."""
        params, fields = jax.tree.map(jnp.copy, (params, fields))  # the loop donates its state
        return State(
            step=jnp.int32(0),
            params=params,
            opt_state=build_optimizer(self.optimizer, self.total_steps).init(params),
            key=key,
            ema=jax.tree.map(jnp.copy, params) if self.optimizer.ema else None,
            **fields,
        )

    def gradients(self, state: State, batch: Any, key: PRNGKeyArray) -> Gradients:
        """Gradients over a batch, accumulated over microbatches."""
        count = len(jax.tree.leaves((batch, state.rows))[0])

        def part(rows: Any, rest: Any) -> tuple[Any, Any, Any]:
            batch, carried, numbers = rows
            part_key = jax.random.fold_in(key, numbers[0])
            read = {
                name: state.tables[name][rule.identifiers(batch, carried)]
                for name, rule in self.tables.items()
            }

            def objective(params: Any, read: Any) -> Any:
                weights = {"params": params, "tables": state.tables, "frozen": state.frozen}
                variables = {**weights, "rows": read}
                return self.loss(variables, batch, Carry(carried, rest), part_key, state.step)

            (grads, of_rows), (carry, metrics) = jax.grad(objective, argnums=(0, 1), has_aux=True)(
                state.params, read
            )
            return (grads, metrics), (of_rows, carry.rows), carry.rest

        (grads, metrics), (of_rows, rows), rest = over_microbatches(
            part, (batch, state.rows, jnp.arange(count)), self.microbatch_size, state.carry
        )
        number = jnp.maximum(metrics["loss"][1], 1)
        grads, of_rows = jax.tree.map(lambda g: g / number, (grads, of_rows))
        return Gradients(grads, of_rows, Carry(rows, rest), jax.lax.stop_gradient(metrics))

    def step(
        self, state: State, batch: Any, total_steps: Array | None = None, scale: Array | None = None
    ) -> tuple[State, Metrics]:
        """One update on the mean loss of a batch (a mapping of arrays [B, …]). `total_steps` may
        take the place of the trainer's own, so that runs of any length have the same program.
        Updates are multiplied by `scale`."""
        steps = self.total_steps if total_steps is None else total_steps
        key = jax.random.fold_in(state.key, state.step)
        found = self.gradients(state, batch, key)
        tables = dict(state.tables)
        for name, rule in self.tables.items():
            rate = learning_rate(self.optimizer, steps, rule.learning_rate)(state.step)
            identifiers = rule.identifiers(batch, state.rows)
            tables[name] = sparse_sign_sgd(
                tables[name], identifiers, found.tables[name], rate, rule.weight_decay
            )
        state = state.replace(rows=found.carry.rows, carry=found.carry.rest, tables=tables)
        state, updates = apply_gradients(state, found.params, self.optimizer, steps, scale=scale)
        return state, {**found.metrics, **updates}


def apply_gradients(
    state: State,
    grads: Any,
    rule: OptimizerConfig,
    total_steps: Any,
    updates_per_step: int = 1,
    left_out: int = 0,
    scale: Array | None = None,
) -> tuple[State, Metrics]:
    """Updates the parameters and their average; returns the new state and what to report.

    The schedule is as long as the run, `total_steps` steps of the loop with so many updates each,
    of which the first may be left out. `scale` multiplies the learning rate.
    """
    optimizer = build_optimizer(rule, total_steps, updates_per_step, left_out)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    if scale is not None:
        updates = jax.tree.map(lambda x: scale * x, updates)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        ema = optax.incremental_update(params, ema, 1 - rule.ema)
    rate = learning_rate(rule, total_steps, rule.learning_rate)(state.step)
    rate = rate if scale is None else scale * rate
    metrics = {"grad_norm": pair(optax.global_norm(grads), 1), "learning_rate": pair(rate, 1)}
    return state.replace(params=params, opt_state=opt_state, ema=ema), metrics


def over_microbatches(
    function: Callable[[Any, Any], tuple[Any, Any, Any]],
    rows: Any,
    microbatch_size: int,
    carry: Any = None,
) -> tuple[Any, Any, Any]:
    """Applies `function` to `rows`, a tree of arrays [B, …], part by part; 0 takes all at once.

    From a part, and what is carried, it gives a tree of sums, a tree of arrays with the part's
    rows, and what is carried on; so does this for all parts together. Part i is made of every n-th
    row from row i on, so that a batch sharded over devices stays spread over them.
    """
    total = len(jax.tree.leaves(rows)[0])
    if microbatch_size in (0, total):
        return function(rows, carry)
    parts = total // microbatch_size

    def split(x: Array) -> Array:
        return jnp.swapaxes(x.reshape(microbatch_size, parts, *x.shape[1:]), 0, 1)

    def join(x: Array) -> Array:
        return jnp.swapaxes(x, 0, 1).reshape(total, *x.shape[2:])

    split_rows = jax.tree.map(split, rows)
    shapes, _, _ = jax.eval_shape(function, jax.tree.map(lambda x: x[0], split_rows), carry)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def body(before: tuple[Any, Any], part: Any) -> tuple[Any, Any]:
        sums, carry = before
        more, kept, carry = function(part, carry)
        return (jax.tree.map(jnp.add, sums, more), carry), kept

    (sums, carry), kept = jax.lax.scan(body, (zeros, carry), split_rows)
    return sums, jax.tree.map(join, kept), carry
