"""Halting, refilling and solving."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.models import act, recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.recurrent import RecurrentNetwork, Thought, think
from hrm_jax.models.trm import TRMConfig
from hrm_jax.tasks.puzzles.evaluation import solve_puzzles

SMALL = HRMConfig(
    seq_len=4, vocab_size=7, hidden_size=16, num_heads=2, expansion=1.0, H_layers=1, L_layers=1,
    halt_max_steps=4, num_puzzle_identifiers=3, puzzle_emb_ndim=16, forward_dtype="float32",
)  # fmt: skip
TINY = TRMConfig(
    seq_len=4, vocab_size=7, hidden_size=16, num_heads=2, expansion=1.0, L_layers=1, H_cycles=2,
    L_cycles=3, halt_max_steps=4, num_puzzle_identifiers=3, puzzle_emb_ndim=16, puzzle_emb_len=2,
    forward_dtype="float32",
)  # fmt: skip
KEY = jax.random.key(0)


def _random_variables(config, seed=0):
    """Variables without zeros, so that q and the puzzle table matter."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: recurrent.init(config, KEY))
    return jax.tree.map(
        lambda x: jnp.asarray(random.standard_normal(x.shape) / np.sqrt(x.shape[0]), x.dtype),
        shapes,
    )


def _batch(rows, config=SMALL, seed=0):
    random = np.random.default_rng(seed)
    return {
        "inputs": jnp.asarray(random.integers(1, config.vocab_size, (rows, config.seq_len))),
        "puzzle_identifiers": jnp.asarray(random.integers(0, 3, rows)),
    }


# --- refill and exploration -------------------------------------------------------------------


def test_refill_resets_only_rows_that_halted():
    batch, other = _batch(3), _batch(3, seed=1)
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


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8])
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


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8])
def test_slots_stay_full(slots):
    """The number of passes is that of a queue whose next puzzle goes to the slot that is free."""
    wanted = np.array([3, 1, 4, 2, 4, 1, 1])
    out, *_ = _solve(wanted, slots)
    free = [0] * slots
    for steps in wanted:
        first = free.index(min(free))
        free[first] += steps
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

_MLP = {"mlp_t": True, "pos_encodings": "none", "num_heads": 3}
KINDS = {
    "P=1": (SMALL, {}),
    "P=0": (SMALL, {"puzzle_emb_ndim": 0}),
    "P=2, padded": (SMALL, {"puzzle_emb_ndim": 20}),
    "learned positions": (SMALL, {"pos_encodings": "learned"}),
    "no q_continue": (SMALL, {"q_target": "none"}),
    "bfloat16": (SMALL, {"forward_dtype": "bfloat16"}),
    "deeper": (SMALL, {"H_cycles": 1, "L_cycles": 3, "H_layers": 2}),
    "TRM": (TINY, {}),
    "TRM, P=0": (TINY, {"puzzle_emb_ndim": 0, "pos_encodings": "none"}),
    "TRM, P=2, padded": (TINY, {"puzzle_emb_ndim": 20, "puzzle_emb_len": 0}),
    "TRM, learned positions": (TINY, {"pos_encodings": "learned", "H_cycles": 1}),
    "TRM, MLP": (TINY, _MLP),
}


@pytest.fixture(scope="module", params=KINDS, ids=lambda name: name)
def kind(request):
    base, changes = KINDS[request.param]
    config = dataclasses.replace(base, **changes)
    variables = _random_variables(config)
    if getattr(config, "mlp_t", False):  # else chaotic: rounding grows tenfold at each step
        for layer in variables["params"]["L_level"].values():
            for name in ("mlp", "mlp_t"):
                layer[name]["down_proj"]["kernel"] *= 0.25
    return config, variables


def test_solving_is_stepping_each_puzzle_by_hand(kind):
    config, variables = kind
    batch = _batch(5)
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


def test_shapes_and_dtypes(kind):
    config, variables = kind
    fresh = recurrent.init(config, KEY)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(fresh))
    assert jax.tree.structure(fresh) == jax.tree.structure(variables)
    assert set(fresh["constants"]) == {"H_init", "L_init"}
    assert ("tables" in fresh) == bool(config.puzzle_emb_ndim)
    batch = _batch(2)
    carry, out = act.act_step(config, variables, act.initial_carry(config, batch), batch)
    assert carry.z_H.dtype == carry.z_L.dtype == config.dtype
    assert carry.z_H.shape == (2, config.prefix_len + 4, 16)
    assert out.logits.shape == (2, 4, 7)
    assert out.logits.dtype == out.q_halt.dtype == out.q_continue.dtype == jnp.float32


def test_fresh_weights_do_not_halt_and_have_the_right_spread():
    config = dataclasses.replace(SMALL, hidden_size=256, vocab_size=200)
    fresh = recurrent.init(config, KEY)
    np.testing.assert_array_equal(fresh["params"]["q_head"]["kernel"], 0)
    np.testing.assert_array_equal(fresh["params"]["q_head"]["bias"], -5)
    np.testing.assert_array_equal(fresh["tables"]["puzzle_emb"], 0)
    np.testing.assert_allclose(
        fresh["params"]["embed_tokens"]["embedding"].std(), 1 / 16, rtol=0.02
    )
    np.testing.assert_allclose(fresh["params"]["lm_head"]["kernel"].std(), 1 / 16, rtol=0.02)
    down = fresh["params"]["L_level"]["layers_0"]["mlp"]["down_proj"]["kernel"]
    np.testing.assert_allclose(down.std(), 1 / np.sqrt(down.shape[0]), rtol=0.02)
    np.testing.assert_allclose(fresh["constants"]["H_init"].std(), 1, rtol=0.15)
    assert not np.array_equal(fresh["constants"]["H_init"], fresh["constants"]["L_init"])


def test_the_puzzle_embedding_matters_and_is_padded_with_zeros():
    config = dataclasses.replace(SMALL, puzzle_emb_ndim=20)
    variables = _random_variables(config)
    batch = _batch(1)
    rows = act.puzzle_rows(variables, jnp.array([1]))
    x = RecurrentNetwork(config).apply(variables, batch["inputs"], rows, method="embed")
    prefix = np.asarray(x[0, :2]).reshape(-1)
    np.testing.assert_allclose(prefix[:20], rows[0] * 4, rtol=1e-6)  # times √D
    np.testing.assert_array_equal(prefix[20:], 0)


# --- the gradient -------------------------------------------------------------------------------


def _read(config, variables, batch, z_H, z_L):
    rows = act.puzzle_rows(variables, batch["puzzle_identifiers"])
    return think(config, variables, z_H, z_L, batch["inputs"], rows)


def _loss(out):
    logits = jax.nn.log_softmax(out.logits)
    return jnp.sum(logits[..., 1]) + jnp.sum(out.q_halt) - 2 * jnp.sum(out.q_continue)


def _states(config, seed=3):
    shape = (2, config.prefix_len + config.seq_len, config.hidden_size)
    z = np.random.default_rng(seed).standard_normal((2, *shape))
    return jnp.asarray(z[0], jnp.float32), jnp.asarray(z[1], jnp.float32)


@pytest.mark.parametrize("config", [SMALL, TINY], ids=["HRM", "TRM"])
def test_no_gradient_reaches_the_states(config):
    variables, batch = _random_variables(config), _batch(2)
    z_H, z_L = _states(config)
    grads = jax.grad(lambda *z: _loss(_read(config, variables, batch, *z)), (0, 1))(z_H, z_L)
    for grad in grads:
        np.testing.assert_array_equal(grad, 0)
    for name in ("z_H", "z_L"):
        grad = jax.grad(
            lambda p: jnp.sum(
                getattr(_read(config, {**variables, "params": p}, batch, z_H, z_L), name)  # noqa: B023
            )
        )(variables["params"])
        assert not any(np.asarray(g).any() for g in jax.tree.leaves(grad))


GRADIENTS = {
    "HRM": (SMALL, 1),  # the last update of z_L
    "TRM": (TINY, 3),  # the whole last round
    "TRM, MLP": (dataclasses.replace(TINY, **_MLP), 3),
}


@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradient_is_that_of_the_last_updates(kind):
    """Against the states before the last updates held constant, and finite differences."""
    config, learnt = GRADIENTS[kind]
    model = RecurrentNetwork(config)
    variables, batch = _random_variables(config), _batch(2)
    z_H, z_L = _states(config)
    rows = act.puzzle_rows(variables, batch["puzzle_identifiers"])

    def update(name, v, *args):
        return model.apply(v, *args, method=f"update_{name}")

    x = model.apply(variables, batch["inputs"], rows, method="embed")
    h, l = z_H, z_L  # noqa: E741
    for cycle in range(config.H_cycles):
        last_round = cycle == config.H_cycles - 1
        for _ in range(config.L_cycles - learnt * last_round):
            l = update("L", variables, h, l, x)  # noqa: E741
        h = h if last_round else update("H", variables, h, l)

    def last(params):
        v = {**variables, "params": params}
        x = model.apply(v, batch["inputs"], rows, method="embed")
        new_l = l
        for _ in range(learnt):
            new_l = update("L", v, h, new_l, x)
        new_h = update("H", v, h, new_l)
        logits, q_halt, q_continue = model.apply(v, new_h, method="read")
        return _loss(Thought(new_h, new_l, logits, q_halt, q_continue))

    def whole(params):
        return _loss(_read(config, {**variables, "params": params}, batch, z_H, z_L))

    params = variables["params"]
    np.testing.assert_allclose(whole(params), last(params), rtol=1e-5)
    ours, theirs = jax.grad(whole)(params), jax.grad(last)(params)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        np.testing.assert_allclose(
            a, b, rtol=0, atol=1e-4 * np.abs(b).max(), err_msg=jax.tree_util.keystr(path)
        )
    length = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(ours)))
    ahead, behind = (  # along the gradient the slope is its length
        last(jax.tree.map(lambda p, g: p + size * g / length, params, ours))  # noqa: B023
        for size in (2e-3, -2e-3)
    )
    np.testing.assert_allclose(length, (ahead - behind) / 4e-3, rtol=0.01)


def test_next_halting_values_are_those_of_the_next_step():
    variables, batch = _random_variables(SMALL), _batch(2)
    z_H, z_L = _states(SMALL)
    rows = act.puzzle_rows(variables, batch["puzzle_identifiers"])
    out = _read(SMALL, variables, batch, z_H, z_L)
    q_halt, q_continue = recurrent.next_halting_values(
        SMALL, variables, z_H, z_L, batch["inputs"], rows
    )
    np.testing.assert_allclose(q_halt, out.q_halt, atol=1e-5)
    np.testing.assert_allclose(q_continue, out.q_continue, atol=1e-5)
