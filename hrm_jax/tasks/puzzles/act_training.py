"""Deep supervision with ACT: the training step that all puzzle tasks share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrm_jax.fields import require_fields
from hrm_jax.models import act
from hrm_jax.models.act import ACTCarry, PuzzleBatch
from hrm_jax.models.recurrent import RecurrentConfig, next_halting_values, think
from hrm_jax.optim.build import OptimizerConfig
from hrm_jax.tasks.base import Metrics, State, pair
from hrm_jax.tasks.puzzles.losses import (
    LossName,
    binary_cross_entropy,
    correctness,
    token_cross_entropy,
)
from hrm_jax.tasks.supervised import Carry, SparseTable, SupervisedTrainer


def segment_loss(
    config: RecurrentConfig,
    loss: LossName,
    variables: Mapping[str, Any],
    rows: Float[Array, "B E"] | None,
    carry: ACTCarry,
    minimum: Int[Array, " B"],
) -> tuple[Float[Array, ""], tuple[ACTCarry, Metrics]]:
    """One training segment: think, halt, and the loss summed over rows.

    The loss of a row is the mean cross entropy of its labelled tokens, plus half the binary cross
    entropies of q_halt against "all right" and of q_continue against its bootstrapped target.
    Metrics of answers are over rows that halt now and have labels, as in the reference.

    Args:
        rows: Puzzle embedding of each row; None without a table.
        carry: After refill; `current_data` has `labels` [B, S] with `IGNORED` where not counted.
        minimum: Least steps before a row may halt on its own wish [B].
    """
    data = carry.current_data
    out = think(config, variables, carry.z_H, carry.z_L, data["inputs"], rows)

    steps = carry.steps + 1
    last = steps >= config.halt_max_steps
    halted = last
    if config.halt_max_steps > 1:
        wants = act.wants_to_halt(config, out.q_halt, out.q_continue) & (steps >= minimum)
        halted = last | wants

    answer = jnp.argmax(out.logits, axis=-1)
    share, all_right, labelled = correctness(answer, data["labels"])
    token_losses = token_cross_entropy(out.logits, data["labels"], loss)
    lm = jnp.sum(token_losses, axis=-1) / jnp.maximum(labelled, 1)
    q_halt_loss = binary_cross_entropy(out.q_halt, all_right.astype(jnp.float32))
    total = lm + 0.5 * q_halt_loss
    counted = halted & (labelled > 0)
    number = jnp.sum(counted)

    def over_halted(values: Array) -> Array:
        return pair(jnp.sum(jnp.where(counted, values, 0)), number)

    batch = carry.steps.shape[0]
    metrics = {
        "accuracy": over_halted(share),
        "exact_accuracy": over_halted(all_right),
        "q_halt_accuracy": over_halted((out.q_halt >= 0) == all_right),
        "steps": over_halted(steps),
        "lm_loss": pair(jnp.sum(lm), batch),
        "q_halt_loss": pair(jnp.sum(q_halt_loss), batch),
    }
    if config.bootstraps:
        next_halt, next_continue = next_halting_values(
            config, variables, out.z_H, out.z_L, data["inputs"], rows
        )
        best = jnp.where(last, next_halt, jnp.maximum(next_halt, next_continue))
        target = jax.lax.stop_gradient(jax.nn.sigmoid(best))
        q_continue_loss = binary_cross_entropy(out.q_continue, target)
        total = total + 0.5 * q_continue_loss
        metrics["q_continue_loss"] = pair(jnp.sum(q_continue_loss), batch)
    metrics["loss"] = pair(jnp.sum(total), batch)
    carry = carry.replace(z_H=out.z_H, z_L=out.z_L, steps=steps, halted=halted)
    return jnp.sum(total), (carry, jax.lax.stop_gradient(metrics))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PuzzleOptimizerConfig(OptimizerConfig):
    """How a puzzle model is updated; the other fields are those of `OptimizerConfig`.

    Attributes:
        puzzle_emb_lr, puzzle_emb_weight_decay: Peak learning rate and weight decay of the puzzle
            table (sparse sign-SGD).
    """

    puzzle_emb_lr: float = 1e-4
    puzzle_emb_weight_decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check = functools.partial(require_fields, self, "optimizer")
        check("more than 0", lambda x: x > 0, "puzzle_emb_lr")
        check("0 or more", lambda x: x >= 0, "puzzle_emb_weight_decay")


@dataclasses.dataclass(frozen=True)
class ACTTrainer:
    """Initial state and step of a puzzle task. Its rows carry an `ACTCarry`, and `State.carry` are
    the model's constants; the other fields are as of `SupervisedTrainer`."""

    model: RecurrentConfig
    optimizer: PuzzleOptimizerConfig
    loss: LossName
    total_steps: int
    microbatch_size: int = 0

    @functools.cached_property
    def supervised(self) -> SupervisedTrainer:
        """What trains on segments; its batches have the least steps of each row, `minimum` [B]."""
        rule = self.optimizer
        table = SparseTable(
            lambda _, carry: carry.current_data["puzzle_identifiers"],
            rule.puzzle_emb_lr,
            rule.puzzle_emb_weight_decay,
        )
        return SupervisedTrainer(
            rule,
            self.total_steps,
            self._loss,
            self.microbatch_size,
            {"puzzle_emb": table} if self.model.puzzle_emb_ndim else {},
        )

    def _loss(
        self, variables: Mapping[str, Any], batch: Any, carry: Carry, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, tuple[Carry, Metrics]]:
        weights = {"params": variables["params"], "constants": carry.rest}
        weights["tables"] = variables["tables"]
        total, (rows, metrics) = segment_loss(
            *(self.model, self.loss, weights, variables["rows"].get("puzzle_emb")),
            *(carry.rows, batch["minimum"]),
        )
        return total, (carry._replace(rows=rows), metrics)

    def init(self, key: PRNGKeyArray, variables: Mapping[str, Any], batch: PuzzleBatch) -> State:
        """A state at step 0 with a copy of the given weights, and a carry shaped for `batch`."""
        return self.supervised.init(
            key,
            variables["params"],
            rows=act.initial_carry(self.model, batch),
            carry=dict(variables["constants"]),
            tables=dict(variables.get("tables", {})),
        )

    def step(self, state: State, batch: PuzzleBatch, key: PRNGKeyArray) -> tuple[State, Metrics]:
        """One optimizer step: refill halted rows, one segment, update. The key is of exploration,
        and of first states where they are drawn.

        Of a batch (inputs, labels [B, S] and puzzle_identifiers [B]) rows whose slot is still
        thinking are dropped.
        """
        fresh = pair(jnp.sum(state.rows.halted), 1)
        noise = None
        if self.model.restart_noise:
            keys = jax.random.split(jax.random.fold_in(key, 1), len(state.rows.steps))
            noise = act.start_noise(self.model, keys, state.rows.z_H)
        rows = act.refill(state.rows, batch, state.carry, noise)
        minimum = act.exploration_minimum(self.model, key, len(rows.steps))
        state, metrics = self.supervised.step(state.replace(rows=rows), {"minimum": minimum})
        return state, {**metrics, "fresh_rows": fresh}


def puzzle_weights(state: State, averaged: bool = True) -> dict[str, Any]:
    """The weights of a puzzle model as `think` takes them."""
    weights = {"params": state.averaged if averaged else state.params, "constants": state.carry}
    return {**weights, "tables": state.tables} if state.tables else weights
