"""Integrated information of Gaussian processes: published values, bounds, and an oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

from hrm_jax.layers import integration

PARTS = ((0,), (1,))


def _joint(action, noise):
    """The joint covariance of x' = A x + e."""
    past = scipy.linalg.solve_discrete_lyapunov(action, noise)
    return np.block([[past, past @ action.T], [action @ past, past]])


def _pair(a, b, c):
    return _joint(np.array([[a, b], [b, a]]), np.array([[1, c], [c, 1]]))


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ((0.4, 0.4, 0), (0.08615, 0.29849, 0.21131, 0.20570)),
        ((0.4, 0.4, 0.9), (-0.44738, 0.03172, 0.86129, 0.20570)),
        ((0.4, 0, 0.9), (0, 0.06940, 0.83037, 0)),
        ((0, 0.4, 0), (0.17435, 0.17435, 0.17435, 0.17435)),
    ],
)
def test_two_coupled_variables(system, expected):
    joint = _pair(*system)
    measures = (
        integration.whole_minus_sum,
        integration.revised,
        integration.stochastic_interaction,
        integration.geometric,
    )
    found = [float(measure(joint, PARTS)) for measure in measures]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    closed = [float(x(jnp.asarray(joint), PARTS)) for x in measures[:3]]
    np.testing.assert_allclose(closed, expected[:3], atol=1e-4)  # float32


def _random_system(seed, size, coupled=True):
    random = np.random.default_rng(seed)
    action = random.normal(size=(size, size))
    half = size // 2
    if not coupled:
        action[:half, half:] = action[half:, :half] = 0
    action *= 0.8 / np.abs(np.linalg.eigvals(action)).max()
    mixed = random.normal(size=(size, size))
    return _joint(action, mixed @ mixed.T + 0.1 * np.eye(size))


@pytest.mark.parametrize("seed", range(5))
def test_the_geometric_measure_is_a_minimum_and_zero_without_coupling(seed):
    parts = integration.halves(4)
    assert integration.geometric(_random_system(seed, 4, coupled=False), parts) < 1e-9
    joint = _random_system(seed, 4)
    found = integration.geometric(joint, parts)
    past, cross = joint[:4, :4], joint[4:, :4]
    full = cross @ np.linalg.inv(past)
    noise = joint[4:, 4:] - full @ cross.T
    inside = np.kron(np.eye(2), np.ones((2, 2))).astype(bool)

    def divergence(values):
        cut = np.zeros((4, 4))
        cut[inside] = values
        residual = noise + (full - cut) @ past @ (full - cut).T
        return 0.5 * (np.linalg.slogdet(residual)[1] - np.linalg.slogdet(noise)[1])

    best = scipy.optimize.minimize(divergence, full[inside], method="BFGS")
    assert found == pytest.approx(best.fun, abs=1e-3)
    assert found < best.fun + 1e-6  # its gradients are differences
    # It is no more than the interaction that takes noise for cause, nor than all that is known.
    assert 0 < found <= integration.stochastic_interaction(joint, parts) + 1e-9
    everything = integration.mutual_information(joint, range(4), range(4, 8))
    assert found <= everything


@pytest.mark.parametrize("measure", ["whole_minus_sum", "revised", "geometric"])
def test_nothing_changes_where_parts_are_mixed_among_themselves(measure):
    joint, parts = _random_system(0, 6), integration.halves(6)
    random = np.random.default_rng(1)
    mixing = scipy.linalg.block_diag(*random.normal(size=(2, 3, 3)))
    both = scipy.linalg.block_diag(mixing, mixing)
    found = [getattr(integration, measure)(x, parts) for x in (joint, both @ joint @ both.T)]
    # What is redundant is the least over pairs of parts, which mixing does not change either.
    assert found[0] == pytest.approx(found[1], abs=1e-8)


def test_the_o_information_is_hoi_s():
    hoi = pytest.importorskip("hoi", reason="the oracle, in the extra dev, is not installed")
    random = np.random.default_rng(0)
    data = random.normal(size=(4000, 4)) @ random.normal(size=(4, 4))
    data[:, 3] += data[:, 0] * 2
    covariance = np.cov(data.T)
    # Gaussian entropies, but not of the copula: ranks are not taken.
    model = hoi.metrics.Oinfo(data, verbose=False)
    expected = model.fit(minsize=4, maxsize=4, method="gauss")
    found = float(integration.o_information(covariance)) / np.log(2)
    assert found == pytest.approx(float(np.ravel(expected)[0]), abs=1e-3)


def test_the_covariance_of_series_and_its_gradient():
    states = jax.random.normal(jax.random.key(0), (3, 50, 4)) * jnp.array([1, 10, 0.1, 1])
    joint = integration.joint_covariance(states, 0.0)
    pairs = np.concatenate([states[:, :-1], states[:, 1:]], axis=-1).reshape(-1, 8)
    np.testing.assert_allclose(joint, np.cov(pairs.T, bias=True), rtol=1e-4, atol=1e-5)
    half = integration.joint_covariance(states, 0.5)
    np.testing.assert_allclose(np.diag(half), np.diag(joint), rtol=1e-6)
    np.testing.assert_allclose(half[0, 1], joint[0, 1] / 2, rtol=1e-5)

    def phi(states):
        return integration.revised(integration.joint_covariance(states, 0.1), PARTS_OF_4)

    small = states[:1, :, :]
    grad = jax.grad(phi)(small)
    direction = jax.random.normal(jax.random.key(1), small.shape)
    with jax.enable_x64(True):
        wide, along = (np.asarray(x, np.float64) for x in (small, direction))
        step = 1e-6
        ahead, behind = (phi(jnp.asarray(wide + x * along)) for x in (step, -step))
    expected = float(ahead - behind) / (2 * step)
    assert float(jnp.vdot(grad, direction)) == pytest.approx(expected, rel=1e-3)
    # A variable that never changes is no reason for NaN.
    still = small.at[..., 0].set(1.0)
    assert np.isfinite(phi(still))
    assert np.isfinite(jax.grad(phi)(still)).all()


PARTS_OF_4 = integration.halves(4)


def test_what_is_no_covariance_is_refused():
    with pytest.raises(ValueError, match="not positive definite"):
        integration.geometric(-np.eye(4), PARTS)


def test_projections_of_other_seeds_are_others():
    one, other = (integration.projections(seed, 2, 16, 4) for seed in (0, 1))
    np.testing.assert_allclose(
        one.swapaxes(1, 2) @ one, np.broadcast_to(np.eye(4), (2, 4, 4)), atol=1e-6
    )
    assert np.abs(one - other).max() > 0.1
    np.testing.assert_array_equal(one, integration.projections(0, 2, 16, 4))
