"""Deep supervision with ACT: the training step that all puzzle tasks share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrm_jax.models import act
from hrm_jax.models.act import ACTCarry, PuzzleBatch
from hrm_jax.models.recurrent import RecurrentConfig, next_halting_values, think
from hrm_jax.optim.build import OptimizerConfig, build_optimizer, learning_rate
from hrm_jax.optim.sign_sgd import sparse_sign_sgd
from hrm_jax.tasks.base import Metrics, State, over_microbatches, pair
from hrm_jax.tasks.puzzles.losses import (
    LossName,
    binary_cross_entropy,
    correctness,
    token_cross_entropy,
)
from hrm_jax.tasks.supervised import apply_gradients


class SegmentRows(struct.PyTreeNode):
    """What a segment leaves for each row, beside its carry.

    Attributes:
        logits: Token logits [B, S, V].
        q_halt, q_continue: Halting values [B].
        target_q_continue: What q_continue is trained towards [B]; None without q_continue.
    """

    logits: Float[Array, "B S V"]
    q_halt: Float[Array, " B"]
    q_continue: Float[Array, " B"]
    target_q_continue: Float[Array, " B"] | None


def segment_loss(
    config: RecurrentConfig,
    loss: LossName,
    variables: Mapping[str, Any],
    row_offsets: Float[Array, "B E"] | None,
    carry: ACTCarry,
    minimum: Int[Array, " B"],
) -> tuple[Float[Array, ""], tuple[ACTCarry, Metrics, SegmentRows]]:
    """One training segment: think, halt, and the loss summed over rows.

    The loss of a row is the mean cross entropy of its labelled tokens, plus half the binary cross
    entropies of q_halt against "all right" and of q_continue against its bootstrapped target.

    Args:
        config: Sizes.
        loss: Token loss.
        variables: Weights.
        row_offsets: Zeros added to the puzzle rows, so that their gradient can be taken without
            one of the whole table; None without a table.
        carry: After refill; `current_data` has `labels` [B, S] with `IGNORED` where not counted.
        minimum: Least steps before a row may halt on its own wish [B].

    Returns:
        The summed loss, and (the new carry, metrics, what each row gave). Metrics of answers are
        over rows that halt now and have labels, as in the reference.
    """
    data = carry.current_data
    rows = act.puzzle_rows(variables, data["puzzle_identifiers"])
    rows = rows if row_offsets is None or rows is None else rows + row_offsets
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
    target = None
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
    kept = SegmentRows(out.logits, out.q_halt, out.q_continue, target)
    return jnp.sum(total), (carry, jax.lax.stop_gradient(metrics), kept)


class SegmentGradients(struct.PyTreeNode):
    """Gradients of loss / B, and what came with them.

    Attributes:
        params: Gradient with respect to the parameters.
        rows: Gradient with respect to each row's puzzle embedding [B, E], or None.
        carry: The new carry.
        metrics: Sums and counts.
        outputs: What each row gave.
    """

    params: Any
    rows: Float[Array, "B E"] | None
    carry: ACTCarry
    metrics: Metrics
    outputs: SegmentRows


def segment_gradients(
    config: RecurrentConfig,
    loss: LossName,
    variables: Mapping[str, Any],
    carry: ACTCarry,
    minimum: Int[Array, " B"],
    microbatch_size: int = 0,
) -> SegmentGradients:
    """Gradients of one segment over a batch, accumulated over microbatches.

    Args:
        config, loss, variables, carry, minimum: As in `segment_loss`.
        microbatch_size: Rows at a time; 0 for all.
    """
    batch = carry.steps.shape[0]
    width = config.puzzle_emb_ndim

    def part(rows: tuple[ACTCarry, Array]) -> tuple[Any, Any]:
        carry, minimum = rows
        offsets = jnp.zeros((carry.steps.shape[0], width)) if width else None

        def objective(params: Any, offsets: Array | None) -> Any:
            return segment_loss(
                config, loss, {**variables, "params": params}, offsets, carry, minimum
            )

        (grads, row_grads), (carry, metrics, kept) = jax.grad(
            objective, argnums=(0, 1), has_aux=True
        )(variables["params"], offsets)
        return (grads, metrics), (row_grads, carry, kept)

    (grads, metrics), (row_grads, carry, kept) = over_microbatches(
        part, (carry, minimum), microbatch_size
    )
    grads, row_grads = jax.tree.map(lambda g: g / batch, (grads, row_grads))
    return SegmentGradients(grads, row_grads, carry, metrics, kept)


@dataclasses.dataclass(frozen=True)
class ACTTrainer:
    """Initial state and step of a puzzle task.

    Attributes:
        model: Sizes.
        optimizer: How parameters are updated.
        loss: Token loss.
        total_steps: Length of the run, for the schedules.
        microbatch_size: Rows whose gradient is computed at a time; 0 for all.
    """

    model: RecurrentConfig
    optimizer: OptimizerConfig
    loss: LossName
    total_steps: int
    microbatch_size: int = 0

    def init(self, key: PRNGKeyArray, variables: Mapping[str, Any], batch: PuzzleBatch) -> State:
        """A state at step 0 with a copy of the given weights, and a carry shaped for `batch`."""
        variables = jax.tree.map(jnp.copy, dict(variables))  # the loop donates its state
        params, tables = variables["params"], dict(variables.get("tables", {}))
        average = {"params": jax.tree.map(jnp.copy, params)} if self.optimizer.ema else None
        return State(
            step=jnp.int32(0),
            params=params,
            opt_state=build_optimizer(self.optimizer, self.total_steps).init(params),
            key=key,
            carry=act.initial_carry(self.model, batch),
            ema=average,
            tables=tables,
            constants=dict(variables["constants"]),
        )

    def step(self, state: State, batch: PuzzleBatch, key: PRNGKeyArray) -> tuple[State, Metrics]:
        """One optimizer step: refill halted rows, one segment, update.

        Args:
            state: Where the run stands.
            batch: inputs, labels [B, S] and puzzle_identifiers [B]; rows whose slot is still
                thinking are dropped.
            key: Randomness of this step (exploration).
        """
        config, rule = self.model, self.optimizer
        variables = state.variables(averaged=False)
        fresh = pair(jnp.sum(state.carry.halted), 1)
        carry = act.refill(state.carry, batch, state.constants)
        minimum = act.exploration_minimum(config, key, carry.steps.shape[0])
        result = segment_gradients(
            config, self.loss, variables, carry, minimum, self.microbatch_size
        )
        tables = state.tables
        if result.rows is not None:
            rate = learning_rate(rule, self.total_steps, rule.puzzle_emb_lr)(state.step)
            identifiers = result.carry.current_data["puzzle_identifiers"]
            table = sparse_sign_sgd(
                tables["puzzle_emb"],
                identifiers,
                result.rows,
                rate,
                rule.puzzle_emb_weight_decay,
            )
            tables = {**tables, "puzzle_emb": table}
        state = state.replace(carry=result.carry, tables=tables)
        state, updates = apply_gradients(state, result.params, rule, self.total_steps)
        return state, {**result.metrics, "fresh_rows": fresh, **updates}
