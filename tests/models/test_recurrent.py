"""The recurrent network: its descriptions, fresh weights, which updates have a gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import KEY, SMALL, TINY, batch_of, random_variables

from hrm_jax.fields import ConfigError
from hrm_jax.models import act, recurrent
from hrm_jax.models.recurrent import RecurrentNetwork, Thought, next_halting_values, think
from hrm_jax.models.trm import TRMConfig

SUDOKU = TRMConfig(seq_len=81, vocab_size=11, puzzle_emb_ndim=512)
MLP = dataclasses.replace(TINY, mlp_t=True, pos_encodings="none", num_heads=3)


# --- sizes and fresh weights --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "number"),
    [({}, 6_828_034), ({"mlp_t": True, "pos_encodings": "none"}, 5_028_866)],
    ids=["attention", "MLP"],
)
def test_the_public_numbers_of_parameters(changes, number):
    """Of what the public code calls parameters: neither puzzle table nor initial states."""
    config = dataclasses.replace(SUDOKU, **changes)
    assert config.prefix_len == 16
    shapes = jax.eval_shape(lambda: recurrent.init(config, jax.random.key(0)))
    count = {k: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert count == {"params": number, "tables": 512, "constants": 2 * 512}


@pytest.mark.parametrize(
    ("ndim", "length", "expected"),
    [(512, 16, 16), (512, 0, 1), (513, 0, 2), (1024, 2, 2), (0, 16, 0), (0, 0, 0)],
)
def test_length_of_the_prefix(ndim, length, expected):
    config = dataclasses.replace(SUDOKU, puzzle_emb_ndim=ndim, puzzle_emb_len=length)
    assert config.prefix_len == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"puzzle_emb_ndim": 1025, "puzzle_emb_len": 2},
            r"puzzle_emb_len: .*fills 3 tokens.*got 2",
        ),
        ({"puzzle_emb_len": -1}, r"model\.puzzle_emb_len"),
        ({"num_heads": 7}, r"model\.num_heads: 7 does not divide"),
        ({"num_heads": 512}, "even head size"),
        ({"L_cycles": 0}, r"model\.L_cycles: expected at least 1"),
        ({"seq_len": 0}, r"model\.seq_len: expected at least 1 to make a model"),
    ],
)
def test_wrong_sizes_are_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        recurrent.init(dataclasses.replace(SUDOKU, **changes), jax.random.key(0))


def test_without_attention_the_heads_do_not_matter():
    dataclasses.replace(SUDOKU, num_heads=7, mlp_t=True, pos_encodings="none")


def test_shapes_and_dtypes():
    """Of every description, in either dtype, with all kinds of positions and prefixes."""
    for base in (SMALL, TINY, MLP):
        for changes in (
            {"forward_dtype": "bfloat16"},
            {"puzzle_emb_ndim": 0},
            {"puzzle_emb_ndim": 20, "pos_encodings": "learned"},
        ):
            config, batch = dataclasses.replace(base, **changes), batch_of(2)
            fresh = jax.eval_shape(functools.partial(recurrent.init, config), KEY)
            assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(fresh))
            assert set(fresh["constants"]) == {"H_init", "L_init"}
            assert ("H_level" in fresh["params"]) == (base is SMALL)
            assert ("embed_pos" in fresh["params"]) == (config.pos_encodings == "learned")
            assert ("tables" in fresh) == bool(config.puzzle_emb_ndim)
            carry = act.initial_carry(config, batch)
            carry, out = jax.eval_shape(
                functools.partial(act.act_step, config), fresh, carry, batch
            )
            assert carry.z_H.dtype == carry.z_L.dtype == config.dtype
            assert carry.z_H.shape == (2, config.prefix_len + 4, 16)
            assert out.logits.shape == (2, 4, 7)
            assert out.logits.dtype == out.q_halt.dtype == out.q_continue.dtype == jnp.float32


def test_fresh_weights_do_not_halt_and_have_the_right_spread():
    config = dataclasses.replace(SMALL, hidden_size=256, vocab_size=200)
    fresh = jax.jit(functools.partial(recurrent.init, config))(KEY)
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
    variables = random_variables(config)
    batch = batch_of(1)
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
    variables, batch = random_variables(config), batch_of(2)

    def read(params, *states):
        return _read(config, {**variables, "params": params}, batch, *states)

    states, params = _states(config), variables["params"]
    back = jax.jit(jax.grad(lambda *args: _loss(read(*args)), (1, 2)))(params, *states)
    np.testing.assert_array_equal(back, 0)
    out = jax.jit(jax.grad(lambda *args: jnp.sum(read(*args).z_H + read(*args).z_L)))
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(out(params, *states)))


GRADIENTS = {
    "HRM": (SMALL, 1),  # the last update of z_L
    "TRM": (TINY, 3),  # the whole last round
}


@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradient_is_that_of_the_last_updates(kind):
    """Against the states before the last updates held constant, and finite differences."""
    config, learnt = GRADIENTS[kind]
    model = RecurrentNetwork(config)
    variables, batch = random_variables(config), batch_of(2)
    z_H, z_L = _states(config)
    rows = act.puzzle_rows(variables, batch["puzzle_identifiers"])

    def update(name, v, *args):
        return model.apply(v, *args, method=f"update_{name}")

    @jax.jit
    def before(h, l):  # noqa: E741
        x = model.apply(variables, batch["inputs"], rows, method="embed")
        for cycle in range(config.H_cycles):
            last_round = cycle == config.H_cycles - 1
            for _ in range(config.L_cycles - learnt * last_round):
                l = update("L", variables, h, l, x)  # noqa: E741
            h = h if last_round else update("H", variables, h, l)
        return h, l

    h, l = before(z_H, z_L)  # noqa: E741

    @jax.jit
    @jax.value_and_grad
    def last(params):
        v = {**variables, "params": params}
        x = model.apply(v, batch["inputs"], rows, method="embed")
        new_l = l
        for _ in range(learnt):
            new_l = update("L", v, h, new_l, x)
        new_h = update("H", v, h, new_l)
        logits, q_halt, q_continue = model.apply(v, new_h, method="read")
        return _loss(Thought(new_h, new_l, logits, q_halt, q_continue))

    @jax.jit
    @jax.value_and_grad
    def whole(params):
        return _loss(_read(config, {**variables, "params": params}, batch, z_H, z_L))

    params = variables["params"]
    (one, ours), (other, theirs) = whole(params), last(params)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        np.testing.assert_allclose(
            a, b, rtol=0, atol=1e-4 * np.abs(b).max(), err_msg=jax.tree_util.keystr(path)
        )
    length = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(ours)))
    ahead, behind = (  # along the gradient the slope is its length
        last(jax.tree.map(lambda p, g: p + size * g / length, params, ours))[0]  # noqa: B023
        for size in (2e-3, -2e-3)
    )
    np.testing.assert_allclose(length, (ahead - behind) / 4e-3, rtol=0.01)


def test_next_halting_values_are_those_of_the_next_step():
    variables, batch = random_variables(SMALL), batch_of(2)
    rows = act.puzzle_rows(variables, batch["puzzle_identifiers"])
    args = (variables, *_states(SMALL), batch["inputs"], rows)
    out = jax.jit(functools.partial(think, SMALL))(*args)
    found = jax.jit(functools.partial(next_halting_values, SMALL))(*args)
    np.testing.assert_allclose(found, (out.q_halt, out.q_continue), atol=1e-5)
