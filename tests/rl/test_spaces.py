"""Spaces: what is drawn from them belongs to them, and nothing else does."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.rl.spaces import Box, Discrete, MultiDiscrete

SPACES = [
    Discrete(3),
    MultiDiscrete((2, 5)),
    Box(-2.0, 2.0, (3,)),
    Box([-1.0, 0.0, -np.inf, -np.inf], [1.0, np.inf, 0.0, np.inf]),
    Box(*(np.array([sign * np.finfo(np.float32).max], np.float32) for sign in (-1, 1))),
    Box(0, 255, (4, 4, 3), np.uint8),
    Box(0, 1, (5,), bool),
    Box(-3, 7, (6,), np.int64),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_samples_belong_to_the_space(space):
    keys = jax.random.split(jax.random.key(0), 500)
    samples = jax.jit(jax.vmap(space.sample))(keys)
    assert samples.shape == (500, *space.shape)
    assert samples.dtype == jax.dtypes.canonicalize_dtype(space.dtype)
    assert bool(jax.vmap(space.contains)(samples).all())
    assert np.isfinite(np.asarray(samples, np.float32)).all()
    assert len(np.unique(samples)) > 1


def test_every_value_of_a_discrete_space_is_drawn():
    keys = jax.random.split(jax.random.key(0), 2000)
    for space, low, high in [
        (Discrete(3), 0, 2),
        (Box(0, 255, (), np.uint8), 0, 255),
        (Box(-3, 7, (), np.int32), -3, 7),
        (Box(0, 1, (), bool), 0, 1),
    ]:
        assert set(np.asarray(jax.vmap(space.sample)(keys)).tolist()) >= {low, high}
    many = np.asarray(jax.vmap(MultiDiscrete((2, 5)).sample)(keys))
    assert many.min(0).tolist() == [0, 0]
    assert many.max(0).tolist() == [1, 4]


def test_what_does_not_belong():
    inside = Box(-1.0, 1.0, (2,))
    assert bool(inside.contains(jnp.array([1.0, -1.0])))
    assert not bool(inside.contains(jnp.array([1.1, 0.0])))
    assert not bool(inside.contains(jnp.array([np.nan, 0.0])))
    assert not bool(inside.contains(jnp.array([0, 0])))
    assert not bool(inside.contains(jnp.zeros(3)))
    assert not bool(Discrete(3).contains(3))
    assert not bool(Discrete(3).contains(-1))
    assert not bool(Discrete(3).contains(1.0))
    assert not bool(MultiDiscrete((2, 5)).contains(jnp.array([2, 0])))
    assert not bool(MultiDiscrete((2, 5)).contains(jnp.int32(1)))


def test_an_unbounded_box_is_drawn_from_as_gymnasium_does():
    low, high = np.array([-np.inf, 2, -np.inf], np.float32), np.array([np.inf, np.inf, -1], "f")
    ours = jax.vmap(Box(low, high).sample)(jax.random.split(jax.random.key(0), 4000))
    space = gymnasium.spaces.Box(low, high, seed=0)
    theirs = np.stack([space.sample() for _ in range(4000)])
    assert np.allclose(ours.mean(0), theirs.mean(0), atol=0.1)
    assert np.allclose(ours.std(0), theirs.std(0), atol=0.1)


def test_spaces_are_equal_by_what_they_hold():
    assert Box(0, 1, (2,)) == Box([0, 0], [1, 1]) != Box(0, 2, (2,))
    assert hash(Box(0, 1, (2,))) == hash(Box([0, 0], [1, 1]))
    assert Box(0, 1, (2,), bool) != Box(0, 1, (2,))
    assert not Box(0, np.inf, ()).bounded


def test_senseless_spaces_are_refused():
    with pytest.raises(ConfigError, match="Discrete: expected n of at least 1, got 0"):
        Discrete(0)
    with pytest.raises(ConfigError, match="MultiDiscrete: expected numbers of at least 1"):
        MultiDiscrete((2, 0))
    with pytest.raises(ConfigError, match="Box: expected low of at most high"):
        Box(1.0, 0.0, (1,))
