"""Adaptive computation time (ACT) over whole puzzles: rows that halt make room for new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from hrm_jax.models.recurrent import RecurrentConfig, Thought, Variables, think

PuzzleBatch = Mapping[str, Array | np.ndarray]
Halting = Literal["q", "fixed"]


class ACTCarry(struct.PyTreeNode):
    """What goes from one ACT step to the next, for each row (slot) of a batch: states, steps that
    its puzzle has had, whether it takes a new one at the next step, and the puzzle."""

    z_H: Float[Array, "B T D"]
    z_L: Float[Array, "B T D"]
    steps: Int[Array, " B"]
    halted: Bool[Array, " B"]
    current_data: dict[str, Array]


def initial_carry(config: RecurrentConfig, batch: PuzzleBatch) -> ACTCarry:
    """A carry in which every row has halted, so that the first step takes all of `batch`.

    Only shapes and dtypes of the batch's arrays matter; `inputs` [B, S] is among them.
    """
    rows, length = batch["inputs"].shape
    shape = (rows, config.positions(length), config.hidden_size)
    return ACTCarry(
        z_H=jnp.zeros(shape, config.dtype),
        z_L=jnp.zeros(shape, config.dtype),
        steps=jnp.zeros(rows, jnp.int32),
        halted=jnp.ones(rows, bool),
        current_data={k: jnp.zeros(v.shape, v.dtype) for k, v in batch.items()},
    )


def where_rows(rows: Bool[Array, " B"], new: Any, old: Any) -> Any:
    """Takes whole rows from `new` where `rows` holds, else from `old` (arrays or trees of them)."""

    def select(a: Array | np.ndarray, b: Array | np.ndarray) -> Array:
        return jnp.where(rows.reshape((-1,) + (1,) * (b.ndim - 1)), a, b)

    return jax.tree.map(select, new, old)


def start_noise(
    config: RecurrentConfig, keys: Key[Array, " B"], like: Float[Array, "B T D"]
) -> Float[Array, "2 B T D"]:
    """What `refill` adds to the initial states of each row, drawn from its key [B]."""
    draw = jax.vmap(lambda key: jax.random.normal(key, (2, *like.shape[1:])), out_axes=1)
    return (config.restart_noise * draw(keys)).astype(like.dtype)


def refill(
    carry: ACTCarry,
    batch: PuzzleBatch,
    constants: Mapping[str, Array],
    noise: Float[Array, "2 B T D"] | None = None,
    again: Bool[Array, " B"] | None = None,
) -> ACTCarry:
    """Gives halted rows the puzzle of the same row of `batch` and the initial states, of z_H and of
    z_L, with what is added to them.

    Rows of `batch` whose slot is still thinking are dropped. Those of `again` have the initial
    states too, and go on with their puzzle.
    """
    z_H = jnp.broadcast_to(constants["H_init"].astype(carry.z_H.dtype), carry.z_H.shape)
    z_L = jnp.broadcast_to(constants["L_init"].astype(carry.z_L.dtype), carry.z_L.shape)
    if noise is not None:
        z_H, z_L = z_H + noise[0], z_L + noise[1]
    halted = carry.halted
    first = halted if again is None else halted | again
    return ACTCarry(
        z_H=where_rows(first, z_H, carry.z_H),
        z_L=where_rows(first, z_L, carry.z_L),
        steps=jnp.where(halted, 0, carry.steps),
        halted=halted,
        current_data=where_rows(halted, dict(batch), carry.current_data),
    )


def puzzle_rows(variables: Variables, identifiers: Int[Array, " B"]) -> Array | None:
    """Rows [B, E] of the puzzle table for the given identifiers; None without a table."""
    tables = variables.get("tables")
    return None if not tables else tables["puzzle_emb"][identifiers]


def wants_to_halt(config: RecurrentConfig, q_halt: Array, q_continue: Array) -> Bool[Array, " B"]:
    """The model's own wish: q_halt above q_continue, or above `halt_threshold` without it."""
    return q_halt > (q_continue if config.bootstraps else config.halt_threshold)


def exploration_minimum(config: RecurrentConfig, key: PRNGKeyArray, rows: int) -> Int[Array, " B"]:
    """Least steps for each row: uniform in 2..halt_max_steps with the exploration probability."""
    coin, length = jax.random.split(key)
    explores = jax.random.uniform(coin, (rows,)) < config.halt_exploration_prob
    return explores * jax.random.randint(length, (rows,), 2, config.halt_max_steps + 1)


def restarts(config: RecurrentConfig, carry: ACTCarry) -> Bool[Array, " B"]:
    """Which thinking rows have had as many steps as they have before they start anew."""
    tried = carry.steps % (config.restart_after or 2**30) == 0
    return tried & (carry.steps > 0) & ~carry.halted


def act_step(
    config: RecurrentConfig,
    variables: Variables,
    carry: ACTCarry,
    batch: PuzzleBatch,
    *,
    halting: Halting = "fixed",
    max_steps: int | None = None,
    noise: Float[Array, "2 B T D"] | None = None,
) -> tuple[ACTCarry, Thought]:
    """One step of evaluation: refill, think, count, halt.

    The batch has `inputs` [B, S] and `puzzle_identifiers` [B] for rows that have halted. "fixed"
    halts after `max_steps` (by default those of training, which it may exceed), as the
    reference's evaluation does; "q" also where the model wants to. The noise is `refill`'s; with it
    and "q" rows start anew that `restarts` says.
    """
    again = restarts(config, carry) if noise is not None and halting == "q" else None
    carry = refill(carry, batch, variables["constants"], noise, again)
    data = carry.current_data
    rows = puzzle_rows(variables, data["puzzle_identifiers"])
    out = think(config, variables, carry.z_H, carry.z_L, data["inputs"], rows)
    steps = carry.steps + 1
    halted = steps >= (max_steps or config.halt_max_steps)
    if halting == "q":
        halted |= wants_to_halt(config, out.q_halt, out.q_continue)
    carry = carry.replace(z_H=out.z_H, z_L=out.z_L, steps=steps, halted=halted)
    return carry, out


class Solved(struct.PyTreeNode):
    """Answers to N puzzles: tokens [N, S], ACT steps [N], and q_halt at the last one [N], of which
    the sigmoid is the model's belief to be right. Tokens are uint8, or uint16 of a vocabulary of
    more than 256.

    With tracing, `trace` are the predictions after each step [N, max_steps, S]; after a row halted
    its last answer is repeated. `iterations` are passes of the network over a whole batch.
    `logits` are those of the answers, float32 [N, S, V], where they are asked for.
    """

    predictions: Any
    steps: Any
    q_halt: Any
    trace: Any
    iterations: Any
    seconds: float = struct.field(pytree_node=False, default=0.0)
    logits: Any = None


def solve(
    config: RecurrentConfig,
    variables: Variables,
    inputs: Int[Array, "N S"],
    identifiers: Int[Array, " N"],
    count: Int[Array, ""],
    key: PRNGKeyArray | None = None,
    *,
    slots: int,
    halting: Halting = "q",
    max_steps: int | None = None,
    trace: bool = False,
    logits: bool = False,
    sharding: jax.sharding.Sharding | None = None,
    step: Callable[..., tuple[ACTCarry, Thought]] = act_step,
) -> Solved:
    """Solves puzzles in one `lax.while_loop`; slots whose row halted take the next puzzle at once.

    Pure; meant to be jitted with everything after `key` static. The loop ends when all rows
    have halted. The first `count` puzzles are real; the others are padding, so that one compiled
    shape serves all numbers. With a key, puzzles start from states of their own, drawn from it and
    their place (`config.restart_noise`); without one they do only after a restart. `slots` are the
    rows B that think at a time, and `sharding` is how they are spread over devices.
    """
    limit = max_steps or config.halt_max_steps
    total, length = inputs.shape
    nowhere = jnp.int32(total)  # scatters to this row are dropped
    width = jnp.uint8 if config.vocab_size <= 256 else jnp.uint16
    result = Solved(
        predictions=jnp.zeros((total, length), width),
        steps=jnp.zeros(total, jnp.int32),
        q_halt=jnp.zeros(total, jnp.float32),
        trace=jnp.zeros((total, limit, length), width) if trace else None,
        iterations=jnp.int32(0),
        logits=jnp.zeros((total, length, config.vocab_size), jnp.float32) if logits else None,
    )
    carry = initial_carry(config, {"inputs": inputs[:1], "puzzle_identifiers": identifiers[:1]})
    carry = jax.tree.map(lambda x: jnp.repeat(x, slots, axis=0), carry)
    owner = jnp.full(slots, nowhere)  # which puzzle a slot works on

    def unfinished(loop: tuple) -> Array:
        carry, owner, first_waiting, _ = loop
        thinking = (owner < nowhere) & ~carry.halted
        return (first_waiting < count) | jnp.any(thinking)

    def drawn(carry: ACTCarry, row: Array) -> Array:
        begins = jnp.zeros_like(carry.halted) if key is None else carry.halted
        base = jax.random.key(0) if key is None else key

        def draw(_: None) -> Array:
            def of(place: Array, tried: Array) -> PRNGKeyArray:
                mine = jax.random.fold_in(base, place)
                return jnp.where(tried > 0, jax.random.fold_in(mine, tried), mine)

            tried = jnp.where(carry.halted, 0, carry.steps)
            noise = start_noise(config, jax.vmap(of)(row, tried), carry.z_H)
            return noise * (begins | again)[:, None, None]

        again = restarts(config, carry)
        nothing = jnp.zeros((2, *carry.z_H.shape), carry.z_H.dtype)
        return jax.lax.cond(jnp.any(begins | again), draw, lambda _: nothing, None)

    def body(loop: tuple) -> tuple:
        carry, owner, first_waiting, result = loop
        place = first_waiting + jnp.cumsum(carry.halted) - 1
        taken = carry.halted & (place < count)
        owner = jnp.where(taken, place, jnp.where(carry.halted, nowhere, owner))
        row = jnp.minimum(owner, total - 1)
        batch = {"inputs": inputs[row], "puzzle_identifiers": identifiers[row]}
        if sharding is not None:
            carry = jax.lax.with_sharding_constraint(carry, sharding)
        options: dict[str, Any] = {"halting": halting, "max_steps": max_steps}
        if key is not None or (config.restart_after and halting == "q"):
            options["noise"] = drawn(carry, row)
        carry, out = step(config, variables, carry, batch, **options)
        answer = jnp.argmax(out.logits, axis=-1).astype(width)
        done = jnp.where(carry.halted, owner, nowhere)
        result = result.replace(
            predictions=result.predictions.at[done].set(answer, mode="drop"),
            steps=result.steps.at[done].set(carry.steps, mode="drop"),
            q_halt=result.q_halt.at[done].set(out.q_halt, mode="drop"),
            iterations=result.iterations + 1,
        )
        if trace:
            kept = result.trace.at[owner, carry.steps - 1].set(answer, mode="drop")
            result = result.replace(trace=kept)
        if logits:
            kept = result.logits.at[done].set(out.logits.astype(jnp.float32), mode="drop")
            result = result.replace(logits=kept)
        return carry, owner, first_waiting + jnp.sum(taken), result

    *_, result = jax.lax.while_loop(unfinished, body, (carry, owner, jnp.int32(0), result))
    if trace:  # rows that halted early keep their answer
        last = jnp.maximum(result.steps - 1, 0)[:, None]
        index = jnp.minimum(jnp.arange(limit)[None], last)
        result = result.replace(trace=jnp.take_along_axis(result.trace, index[:, :, None], axis=1))
    return result
