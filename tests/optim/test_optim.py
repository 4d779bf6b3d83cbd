"""Optimizers: the reference's numbers, and what an update may touch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.optim.adam_atan2 import adam_atan2, scale_by_adam_atan2
from hrm_jax.optim.build import OptimizerConfig, build_optimizer, learning_rate
from hrm_jax.optim.sign_sgd import sparse_sign_sgd


@pytest.fixture(scope="module")
def units(parity):
    with np.load(parity / "units.npz") as file:
        return dict(file)


@pytest.mark.parametrize("form", ["upstream", "a127"])
def test_adam_atan2_is_the_references(form, units):
    rule = adam_atan2(3e-2, 0.9, 0.95, weight_decay=0.1, form=form)
    params = jnp.asarray(units["adam/p0"])
    state = rule.init(params)
    for grads, expected in zip(units["adam/grads"], units[f"adam/{form}"], strict=True):
        updates, state = rule.update(jnp.asarray(grads), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params, expected, rtol=1e-5, atol=1e-6)


def test_adam_atan2_of_zero_gradients_is_finite():
    rule = scale_by_adam_atan2()
    zeros = jnp.zeros(3)
    updates, _ = rule.update(zeros, rule.init(zeros))
    np.testing.assert_array_equal(updates, 0)


def test_adam_atan2_ignores_the_scale_of_gradients():
    rule = scale_by_adam_atan2()
    grads = jnp.array([1.0, -2.0, 0.5])
    small, _ = rule.update(grads * 1e-12, rule.init(grads))
    large, _ = rule.update(grads * 1e6, rule.init(grads))
    np.testing.assert_allclose(small, large, rtol=1e-5)


def test_schedule_is_the_references(units):
    schedule = learning_rate(OptimizerConfig(warmup_steps=20, lr_min_ratio=0.1), 100, 1e-4)
    ours = [schedule(step - 1) for step in units["sched/step"]]  # ours counts updates from 0
    np.testing.assert_allclose(ours, units["sched/lr"], rtol=1e-5, atol=1e-12)


def test_a_constant_schedule_does_not_depend_on_the_length_of_the_run():
    rule = OptimizerConfig(warmup_steps=10, lr_min_ratio=1.0)
    for step in (0, 9, 10, 500):
        assert learning_rate(rule, 100, 1e-3)(step) == learning_rate(rule, 1000, 1e-3)(step)
    assert learning_rate(OptimizerConfig(warmup_steps=0), 100, 1e-3)(0) == np.float32(1e-3)


def test_updates_that_are_left_out_count_for_the_schedule():
    """Weights shrink by the rate of the step that an update belongs to: here two to a step."""
    rule = OptimizerConfig(
        name="adamw", learning_rate=0.5, warmup_steps=0, weight_decay=1.0, lr_min_ratio=0.0
    )
    schedule = learning_rate(rule, 4, 0.5)
    optimizer = build_optimizer(rule, 4, updates_per_step=2, left_out=3)
    params, zeros = jnp.float32(1), jnp.float32(0)
    state = optimizer.init(params)
    for number in range(3, 8):
        updates, state = optimizer.update(zeros, state, params)
        np.testing.assert_allclose(updates, -schedule(number // 2), atol=1e-7)


def test_sparse_update_is_the_references(units):
    new = sparse_sign_sgd(
        jnp.asarray(units["sparse/w0"]),
        jnp.asarray(units["sparse/ids"]),
        jnp.asarray(units["sparse/grad"]),
        0.01,
        0.1,
    )
    np.testing.assert_allclose(new, units["sparse/w1"], rtol=1e-6, atol=1e-7)


def test_sparse_update_sums_duplicates_and_leaves_other_rows():
    table = jnp.arange(12.0).reshape(6, 2) + 1
    identifiers = jnp.array([4, 1, 4, 4])
    # Row 4: the sum is (+1, 0), though two of three rows have the other sign.
    grads = jnp.array([[-1.0, 1.0], [2.0, -2.0], [-1.0, 1.0], [3.0, -2.0]])
    new = np.asarray(sparse_sign_sgd(table, identifiers, grads, 0.1, 0.5))
    expected = np.array(table)
    expected[4] = expected[4] * 0.95 - 0.1 * np.array([1, 0])
    expected[1] = expected[1] * 0.95 - 0.1 * np.array([1, -1])
    np.testing.assert_allclose(new, expected, rtol=1e-6)
    np.testing.assert_array_equal(new[[0, 2, 3, 5]], table[jnp.array([0, 2, 3, 5])])


def test_sparse_update_never_makes_a_dense_gradient():
    """With a million rows: no array of that size but the table, and that one is donated."""
    rows, width = 1_000_000, 64
    table = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    identifiers = jax.ShapeDtypeStruct((32,), jnp.int32)
    grads = jax.ShapeDtypeStruct((32, width), jnp.float32)

    def update(table, identifiers, grads):
        return sparse_sign_sgd(table, identifiers, grads, 0.1, 0.5)

    jaxpr = jax.make_jaxpr(update)(table, identifiers, grads)
    large = [
        eqn.primitive.name
        for eqn in jaxpr.jaxpr.eqns
        for out in eqn.outvars
        if rows in out.aval.shape
    ]
    assert large == ["scatter"]
    compiled = jax.jit(update, donate_argnums=0).lower(table, identifiers, grads).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes == 4 * rows * width
    assert memory.temp_size_in_bytes < rows


def test_training_step_never_makes_a_dense_gradient():
    """The whole step: the table of a million rows is only read from and scattered to, in place."""
    from hrm_jax.models import recurrent
    from hrm_jax.models.hrm import HRMConfig
    from hrm_jax.tasks.puzzles.act_training import ACTTrainer, PuzzleOptimizerConfig

    rows = 1_000_000
    config = HRMConfig(
        seq_len=4, vocab_size=5, hidden_size=8, num_heads=2, H_layers=1, L_layers=1,
        num_puzzle_identifiers=rows, puzzle_emb_ndim=8, forward_dtype="float32",
    )  # fmt: skip
    rule = PuzzleOptimizerConfig(ema=0.9)
    trainer = ACTTrainer(config, rule, "stablemax", 10, microbatch_size=2)
    batch = {
        "inputs": jax.ShapeDtypeStruct((4, 4), jnp.int32),
        "labels": jax.ShapeDtypeStruct((4, 4), jnp.int32),
        "puzzle_identifiers": jax.ShapeDtypeStruct((4,), jnp.int32),
    }
    key = jax.random.key(0)
    state = jax.eval_shape(lambda k, b: trainer.init(k, recurrent.init(config, k), b), key, batch)
    made = []

    def visit(jaxpr):
        for eqn in jaxpr.eqns:
            inner = [p for p in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns"))
                     if hasattr(p, "eqns") or hasattr(p, "jaxpr")]  # fmt: skip
            for sub in inner:
                visit(getattr(sub, "jaxpr", sub))
            if not inner:
                made.extend(
                    eqn.primitive.name for v in eqn.outvars if rows in getattr(v.aval, "shape", ())
                )

    visit(jax.make_jaxpr(trainer.step)(state, batch, key).jaxpr)
    assert set(made) - {"stop_gradient", "copy"} == {"scatter"}
    assert made.count("scatter") == 1
    step = jax.jit(trainer.step, donate_argnums=0)
    memory = step.lower(state, batch, key).compile().memory_analysis()
    assert memory.alias_size_in_bytes > 4 * rows * 8
    assert memory.temp_size_in_bytes < rows


@pytest.mark.parametrize("name", ["adam_atan2", "adam_atan2_a127", "adamw"])
def test_weight_decay_is_decoupled_and_on_every_parameter(name):
    params = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, -3.0)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    rule = OptimizerConfig(
        name=name, learning_rate=0.1, warmup_steps=0, weight_decay=0.5, lr_min_ratio=1.0
    )
    optimizer = build_optimizer(rule, 10)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for new, old in zip(
        jax.tree.leaves(optax.apply_updates(params, updates)), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(new, old * (1 - 0.1 * 0.5), rtol=1e-6)


def test_muon_takes_a_convolution_as_the_matrix_from_what_lies_under_it():
    optimizer = build_optimizer(OptimizerConfig(name="muon", weight_decay=0.0), 10)
    kernel, grads = jax.random.normal(jax.random.key(0), (2, 3, 3, 4, 8))

    def step(shape):
        one, two = ({"a": {"b": {"kernel": x.reshape(shape)}}} for x in (kernel, grads))
        return optimizer.update(two, optimizer.init(one), one)[0]["a"]["b"]["kernel"]

    found, expected = step((3, 3, 4, 8)), step((36, 8))
    np.testing.assert_allclose(found.reshape(36, 8), expected, atol=1e-3 * np.abs(expected).max())
    lengths = jnp.linalg.svd(expected, compute_uv=False)
    assert lengths.max() < 2 * lengths.min()  # Adam's steps are not orthogonal


def test_clipping():
    """Steps of AdamW with clipped gradients are those with gradients scaled down by hand."""
    params = jnp.zeros(2)
    grads = jnp.array([3.0, 4.0])
    rule = OptimizerConfig(name="adamw", warmup_steps=0, weight_decay=0.0)
    clipped = build_optimizer(dataclasses.replace(rule, clip_norm=1.0), 10)
    plain = build_optimizer(rule, 10)
    a, b = clipped.init(params), plain.init(params)
    for factor in (1.0, 0.01):  # norms 5 and 0.05: the second is left as it is
        up, a = clipped.update(grads * factor, a, params)
        expected, b = plain.update(grads * min(factor, 0.2), b, params)
        np.testing.assert_allclose(up, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": 0.0},
        {"weight_decay": -0.1},
        {"warmup_steps": -1},
        {"b2": 1.0},
        {"ema": 1.0},
        {"lr_min_ratio": 1.5},
        {"clip_norm": -1.0},
    ],
)
def test_values_out_of_range(bad):
    (name,) = bad
    with pytest.raises(ConfigError, match=f"optimizer.{name}"):
        OptimizerConfig(**bad)
