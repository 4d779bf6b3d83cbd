"""Losses: the reference's values and gradients, and the edges of stablemax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.tasks.puzzles.losses import (
    IGNORED,
    binary_cross_entropy,
    correctness,
    stablemax_log_probabilities,
    token_cross_entropy,
)


@pytest.fixture(scope="module")
def units(parity):
    with np.load(parity / "units.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", ["stablemax", "softmax"])
def test_values_and_gradients_are_the_references(name, units):
    logits, labels = jnp.asarray(units["loss/logits"]), jnp.asarray(units["loss/labels"])
    assert (labels == IGNORED).any()
    losses = token_cross_entropy(logits, labels, name)
    np.testing.assert_allclose(losses, units[f"loss/{name}"], rtol=1e-5, atol=1e-6)
    grads = jax.grad(lambda x: token_cross_entropy(x, labels, name).sum())(logits)
    np.testing.assert_allclose(grads, units[f"loss/{name}_grad"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-30, 1e30, -1e30])
@pytest.mark.parametrize("other", [0.0, 1.0, -1.0])
def test_stablemax_is_finite_everywhere(value, other):
    logits = jnp.array([[value, other, 0.5]])
    for label in range(3):
        loss, grad = jax.value_and_grad(
            lambda x: token_cross_entropy(x, jnp.array([label]), "stablemax").sum()  # noqa: B023
        )(logits)
        assert np.isfinite(loss), (value, other, label)
        assert np.isfinite(grad).all(), (value, other, label)


def test_stablemax_is_a_distribution_and_its_slope_at_zero_is_one():
    logits = jax.random.normal(jax.random.key(0), (5, 7)) * 30
    total = jnp.exp(stablemax_log_probabilities(logits)).sum(-1)
    np.testing.assert_allclose(total, 1, rtol=1e-5)

    def log_s(x):  # log s(x) − log s(0), as p(x)/p(0)
        both = stablemax_log_probabilities(jnp.stack([x, 0.0]))
        return both[0] - both[1]

    for x in (0.0, 1e-8, -1e-8):
        np.testing.assert_allclose(jax.grad(log_s)(x), 1.0, rtol=1e-5)


def test_ignored_labels_give_neither_loss_nor_gradient():
    logits = jnp.ones((1, 2, 3))
    labels = jnp.array([[IGNORED, 1]])
    for name in ("stablemax", "softmax"):
        assert token_cross_entropy(logits, labels, name)[0, 0] == 0
        grad = jax.grad(lambda x: token_cross_entropy(x, labels, name).sum())(logits)  # noqa: B023
        assert not grad[0, 0].any()
        assert grad[0, 1].any()


def test_binary_cross_entropy():
    x, t = jnp.array([-2.0, 0.0, 3.0, 200.0, -200.0]), jnp.array([0.0, 1.0, 0.3, 0.0, 1.0])
    p = 1 / (1 + np.exp(-np.asarray(x, np.float64)))
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = -(np.nan_to_num(t * np.log(p)) + np.nan_to_num((1 - t) * np.log1p(-p)))
    expected[3:] = 200
    np.testing.assert_allclose(binary_cross_entropy(x, t), expected, rtol=1e-6)


def test_correctness():
    predictions = jnp.array([[1, 2, 3], [1, 2, 3], [1, 2, 3]])
    labels = jnp.array([[1, 2, IGNORED], [1, 9, 3], [IGNORED] * 3])
    share, all_right, labelled = correctness(predictions, labels)
    np.testing.assert_allclose(share, [1, 2 / 3, 0])
    np.testing.assert_array_equal(all_right, [True, False, True])
    np.testing.assert_array_equal(labelled, [2, 3, 0])
