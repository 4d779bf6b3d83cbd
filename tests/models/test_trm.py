"""What TRM alone has: its sizes, its prefix, its layer over positions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.layers.block import PostNormBlock
from hrm_jax.layers.feed_forward import FeedForward
from hrm_jax.models import act, recurrent
from hrm_jax.models.trm import TRMConfig
from hrm_jax.tasks.puzzles.act_training import ACTTrainer, PuzzleOptimizerConfig

SUDOKU = TRMConfig(seq_len=81, vocab_size=11, puzzle_emb_ndim=512)
TINY = TRMConfig(
    seq_len=4, vocab_size=7, hidden_size=16, num_heads=2, expansion=1.0, L_layers=1, H_cycles=2,
    L_cycles=2, halt_max_steps=4, num_puzzle_identifiers=3, puzzle_emb_ndim=16, puzzle_emb_len=2,
    forward_dtype="float32",
)  # fmt: skip


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


def test_fresh_weights_do_not_halt():
    fresh = recurrent.init(TINY, jax.random.key(0))
    np.testing.assert_array_equal(fresh["params"]["q_head"]["kernel"], 0)
    np.testing.assert_array_equal(fresh["params"]["q_head"]["bias"], -5)
    np.testing.assert_array_equal(fresh["tables"]["puzzle_emb"], 0)
    assert set(fresh["params"]) == {"embed_tokens", "lm_head", "q_head", "L_level"}


def test_the_layer_over_positions_mixes_positions_of_one_channel_only():
    block = PostNormBlock(
        lambda x: FeedForward("fused_swiglu", 8, name="mlp_t")(x), width=8, axis=-2
    )
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 6)), jnp.float32)
    variables = block.init(jax.random.key(0), x)
    kernels = variables["params"]
    assert kernels["mlp_t"]["gate_up_proj"]["kernel"].shape == (5, 16)
    assert kernels["mlp_t"]["down_proj"]["kernel"].shape == (8, 5)
    assert "self_attn" not in kernels
    kernels["mlp"]["down_proj"]["kernel"] *= 0  # leaves the norm over channels
    out = block.apply(variables, x)
    scale = jnp.sqrt(jnp.mean(out**2, axis=-1))
    np.testing.assert_allclose(scale, 1, rtol=1e-4)
    moved = block.apply(variables, x.at[0, 2, 3].add(1.0))
    # But for that norm, one number for each position, only channel 3 has changed: everywhere.
    ratio = np.asarray(moved / out)[0]
    others = np.delete(ratio, 3, axis=1)
    np.testing.assert_allclose(others, others[:, :1].repeat(5, axis=1), rtol=1e-3)
    assert (np.abs(ratio[:, 3] - others[:, 0]) > 1e-3).all()


def _trained(config, steps=3):
    trainer = ACTTrainer(config, PuzzleOptimizerConfig(warmup_steps=0), "stablemax", 10)
    random = np.random.default_rng(0)
    batch = {
        "inputs": jnp.asarray(random.integers(1, 7, (4, 4)), jnp.int32),
        "labels": jnp.asarray(random.integers(1, 7, (4, 4)), jnp.int32),
        "puzzle_identifiers": jnp.zeros(4, jnp.int32),
    }
    variables = recurrent.init(config, jax.random.key(1))
    variables["params"]["q_head"]["bias"] = jnp.array([3.0, 3.0])
    state = trainer.init(jax.random.key(0), variables, batch)
    step = jax.jit(trainer.step)
    for i in range(steps):
        state, metrics = step(state, batch, jax.random.key(i))
    return state, metrics


def test_q_continue_is_not_trained():
    state, metrics = _trained(dataclasses.replace(TINY, halt_exploration_prob=0.0))
    assert "q_continue_loss" not in metrics
    head = state.params["q_head"]
    np.testing.assert_array_equal(head["kernel"][:, 1], 0)
    decayed = 3 * (1 - 1e-4) ** 3  # weight decay alone
    np.testing.assert_allclose(head["bias"][1], decayed, rtol=1e-6)
    assert not np.allclose(head["bias"][0], decayed, rtol=1e-6)


def test_training_halts_where_q_halt_is_above_the_threshold():
    config = dataclasses.replace(TINY, halt_exploration_prob=0.0)
    for changes, halted in (
        ({}, True),
        ({"halt_threshold": 10.0}, False),
        ({"halt_exploration_prob": 1.0}, False),  # then two steps at least
    ):
        state, _ = _trained(dataclasses.replace(config, **changes), steps=1)
        np.testing.assert_array_equal(state.rows.steps, 1)
        np.testing.assert_array_equal(state.rows.halted, halted)


def test_evaluation_with_fixed_halting_goes_on():
    variables = recurrent.init(TINY, jax.random.key(0))
    variables["params"]["q_head"]["bias"] = jnp.array([3.0, 0.0])
    batch = {"inputs": jnp.ones((2, 4), jnp.int32), "puzzle_identifiers": jnp.zeros(2, jnp.int32)}
    carry = act.initial_carry(TINY, batch)
    for halting, halted in (("fixed", False), ("q", True)):
        new, _ = act.act_step(TINY, variables, carry, batch, halting=halting)
        assert bool(new.halted.all()) == halted
