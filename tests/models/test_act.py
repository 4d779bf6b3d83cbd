"""Halting, refilling and solving."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import KEY, SMALL, TINY, batch_of, random_variables

from hrm_jax.models import act
from hrm_jax.models.recurrent import Thought
from hrm_jax.tasks.puzzles.act_training import segment_loss
from hrm_jax.tasks.puzzles.evaluation import solve_puzzles

# --- refill and exploration -------------------------------------------------------------------


def test_refill_resets_only_rows_that_halted():
    batch, other = batch_of(3), batch_of(3, seed=1)
    constants = {"H_init": jnp.full(16, 2.0), "L_init": jnp.full(16, 3.0)}
    carry = act.initial_carry(SMALL, batch)
    assert carry.halted.all()
    assert carry.z_H.shape == (3, 1 + 4, 16)
    carry = act.refill(carry, batch, constants)
    np.testing.assert_array_equal(carry.z_H, 2)
    np.testing.assert_array_equal(carry.z_L, 3)
    carry = carry.replace(
        z_H=carry.z_H + 1, steps=jnp.array([1, 2, 3]), halted=jnp.array([False, True, False])
    )
    new = act.refill(carry, other, constants)
    np.testing.assert_array_equal(new.steps, [1, 0, 3])
    np.testing.assert_array_equal(new.z_H[:, 0, 0], [3, 2, 3])
    for name in batch:
        np.testing.assert_array_equal(new.current_data[name][1], other[name][1])
        for row in (0, 2):
            np.testing.assert_array_equal(new.current_data[name][row], batch[name][row])


def test_exploration_is_uniform_from_two_to_the_maximum():
    config = dataclasses.replace(SMALL, halt_exploration_prob=0.25, halt_max_steps=5)
    minimum = np.asarray(act.exploration_minimum(config, KEY, 40_000))
    values, counts = np.unique(minimum, return_counts=True)
    np.testing.assert_array_equal(values, [0, 2, 3, 4, 5])
    np.testing.assert_allclose(counts / 40_000, [0.75, *[0.0625] * 4], atol=0.01)
    never = act.exploration_minimum(
        dataclasses.replace(config, halt_exploration_prob=0.0), KEY, 1000
    )
    assert not np.asarray(never).any()


def test_wish_to_halt():
    q_halt, q_continue = jnp.array([1.0, 1.0, -1.0]), jnp.array([0.5, 2.0, -2.0])
    np.testing.assert_array_equal(act.wants_to_halt(SMALL, q_halt, q_continue), [True, False, True])
    alone = dataclasses.replace(SMALL, q_target="none")
    np.testing.assert_array_equal(act.wants_to_halt(alone, q_halt, q_continue), [True, True, False])
    np.testing.assert_array_equal(act.wants_to_halt(TINY, q_halt, q_continue), [True, True, False])
    surer = dataclasses.replace(TINY, halt_threshold=1.0)
    assert not act.wants_to_halt(surer, q_halt, q_continue).any()


# --- solve, with a network that is scripted ------------------------------------------------------


def _scripted(config, variables, carry, batch, *, halting, max_steps):
    """Wants to halt after as many steps as the first token says; answers token + steps."""
    carry = act.refill(carry, batch, variables["constants"])
    inputs, steps = carry.current_data["inputs"], carry.steps + 1
    answer = (inputs + steps[:, None] + carry.current_data["puzzle_identifiers"][:, None]) % 50
    q_halt = jnp.where(steps >= inputs[:, 0], 1.0, -1.0) * steps
    halted = steps >= (max_steps or config.halt_max_steps)
    if halting == "q":
        halted |= q_halt > 0
    logits = jax.nn.one_hot(answer, 50)
    carry = carry.replace(steps=steps, halted=halted)
    return carry, Thought(carry.z_H, carry.z_L, logits, q_halt, 0 * q_halt)


SCRIPT = dataclasses.replace(SMALL, vocab_size=50, hidden_size=2, num_heads=1, puzzle_emb_ndim=0)
CONSTANTS = {"constants": {"H_init": jnp.zeros(2), "L_init": jnp.zeros(2)}}


def _solve(wanted, slots, *, total=None, **options):
    """Solves puzzles that want the given numbers of steps; padding asks for many steps."""
    count = len(wanted)
    total = total or count
    inputs = np.full((total, 4), 40)
    inputs[:count, 0] = wanted
    inputs[:count, 1] = np.arange(count)
    identifiers = np.arange(total) % 3
    solver = jax.jit(
        functools.partial(
            act.solve, SCRIPT, slots=slots, step=_scripted, **{"trace": True, **options}
        )
    )
    out = solver(CONSTANTS, jnp.asarray(inputs), jnp.asarray(identifiers), jnp.int32(count))
    return jax.device_get(out), inputs, identifiers


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("total", [5, 8])
def test_every_puzzle_is_solved_once_and_padding_never(slots, total):
    wanted = np.array([3, 1, 4, 2, 9])
    out, inputs, identifiers = _solve(wanted, slots, total=total)
    steps = np.minimum(wanted, SCRIPT.halt_max_steps)
    np.testing.assert_array_equal(out.steps[:5], steps)
    np.testing.assert_array_equal(out.steps[5:], 0)
    expected = inputs[:5] + steps[:, None] + identifiers[:5, None]
    np.testing.assert_array_equal(out.predictions[:5], expected % 50)
    np.testing.assert_array_equal(out.predictions[5:], 0)
    np.testing.assert_array_equal(out.q_halt[:5], np.where(wanted <= 4, steps, -steps))
    for k in range(4):  # the answer after k + 1 steps, the last one repeated
        at = np.minimum(k + 1, steps)[:, None]
        np.testing.assert_array_equal(
            out.trace[:5, k], (inputs[:5] + at + identifiers[:5, None]) % 50
        )
    free = [0] * slots  # slots stay full: the next puzzle goes to the one that is free first
    for count in steps:
        free[free.index(min(free))] += count
    assert out.iterations == max(free)


def test_fixed_halting_and_more_steps_than_in_training():
    wanted = np.array([1, 6, 20])
    out, *_ = _solve(wanted, 2, halting="fixed")
    np.testing.assert_array_equal(out.steps, 4)
    out, *_ = _solve(wanted, 2, max_steps=10)
    np.testing.assert_array_equal(out.steps, [1, 6, 10])
    assert out.trace.shape == (3, 10, 4)
    out, *_ = _solve(wanted, 2, max_steps=2)
    np.testing.assert_array_equal(out.steps, [1, 2, 2])


def test_no_trace_and_no_puzzles():
    out, *_ = _solve(np.array([2, 3]), 2, trace=False)
    assert out.trace is None
    out, *_ = _solve(np.array([], int), 2, total=4)
    assert out.iterations == 0
    np.testing.assert_array_equal(out.predictions, 0)


# --- solve, with the network --------------------------------------------------------------------

KINDS = {
    "HRM, P=2, padded, deeper, many tokens": dataclasses.replace(
        SMALL, puzzle_emb_ndim=20, H_cycles=1, L_cycles=3, H_layers=2, vocab_size=400
    ),
    "HRM, P=0, learned positions, no q_continue": dataclasses.replace(
        SMALL, puzzle_emb_ndim=0, pos_encodings="learned", q_target="none"
    ),
    "HRM, bfloat16": dataclasses.replace(SMALL, forward_dtype="bfloat16"),
    "TRM, P=0, no positions": dataclasses.replace(TINY, puzzle_emb_ndim=0, pos_encodings="none"),
    "TRM, P=2, padded, learned positions": dataclasses.replace(
        TINY, puzzle_emb_ndim=20, puzzle_emb_len=0, pos_encodings="learned", H_cycles=1
    ),
    "TRM, MLP": dataclasses.replace(TINY, mlp_t=True, pos_encodings="none", num_heads=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_solving_is_stepping_each_puzzle_by_hand(kind):
    config = KINDS[kind]
    variables = random_variables(config)
    if config.mixing == "positions":  # else chaotic: rounding grows tenfold at each step
        for layer in variables["params"]["L_level"].values():
            for name in ("mlp", "mlp_t"):
                layer[name]["down_proj"]["kernel"] *= 0.25
    batch = batch_of(5)
    step = jax.jit(functools.partial(act.act_step, config, halting="q", max_steps=6))
    expected = []
    for row in range(5):
        one = {k: v[row : row + 1] for k, v in batch.items()}
        carry, answers = act.initial_carry(config, one), []
        while not answers or not carry.halted[0]:
            carry, out = step(variables, carry, one)
            assert out.logits.dtype == out.q_halt.dtype == jnp.float32
            answers.append(np.asarray(out.logits[0].argmax(-1)))
            wish = act.wants_to_halt(config, out.q_halt, out.q_continue)[0]
            assert carry.halted[0] == (wish or len(answers) == 6)
        expected.append((answers, float(out.q_halt[0])))
    solved = solve_puzzles(
        config,
        variables,
        np.asarray(batch["inputs"]),
        np.asarray(batch["puzzle_identifiers"]),
        slots=2,
        max_steps=6,
        trace=True,
    )
    tolerance = 0.1 if config.forward_dtype == "bfloat16" else 1e-4
    for row, (answers, q_halt) in enumerate(expected):
        assert solved.steps[row] == len(answers)
        np.testing.assert_array_equal(solved.predictions[row], answers[-1])
        np.testing.assert_array_equal(solved.trace[row, : len(answers)], answers)
        np.testing.assert_allclose(solved.q_halt[row], q_halt, atol=tolerance)


def _sure(variables, q_halt):
    """The variables with these halting values, whatever the puzzle."""
    head = {"kernel": jnp.zeros((16, 2)), "bias": jnp.array([q_halt, 9.0])}
    return {**variables, "params": {**variables["params"], "q_head": head}}


def test_trm_halts_in_training_where_q_halt_is_above_the_threshold():
    config = dataclasses.replace(TINY, halt_threshold=3.0)
    variables, batch = random_variables(config), batch_of(4)
    batch["labels"] = batch["inputs"]
    carry = act.refill(act.initial_carry(config, batch), batch, variables["constants"])
    minimum = jnp.array([0, 1, 2, 3])

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def segment(params):
        weights = {**variables, "params": params}
        rows = act.puzzle_rows(weights, batch["puzzle_identifiers"])
        return segment_loss(config, "stablemax", weights, rows, carry, minimum)

    for q_halt in (2.9, 3.1):
        grads, (after, metrics) = segment(_sure(variables, q_halt)["params"])
        np.testing.assert_array_equal(after.steps, 1)
        np.testing.assert_array_equal(after.halted, (minimum < 2) & (q_halt > 3))
    assert "q_continue_loss" not in metrics  # and it is not trained
    kernel = grads["q_head"]["kernel"]
    assert np.asarray(kernel[:, 0]).any()
    np.testing.assert_array_equal(kernel[:, 1], 0)


def test_evaluation_with_fixed_halting_goes_on():
    variables, batch = _sure(random_variables(TINY), 3.0), batch_of(2)
    carry = act.initial_carry(TINY, batch)
    carry, _ = jax.jit(functools.partial(act.act_step, TINY))(variables, carry, batch)
    assert not carry.halted.any()
