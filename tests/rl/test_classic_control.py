"""CartPole, Pendulum, the mountain cars and Acrobot are gymnasium's, which is the judge."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.rl.environments import make
from hrm_jax.rl.spaces import Discrete

POLICIES = {
    "CartPole-v1": lambda o: int(o[2] + 0.5 * o[3] + 0.05 * o[0] + 0.1 * o[1] > 0),
    "Pendulum-v1": lambda o: np.float32([2 * np.sign(o[2])]),
    "MountainCar-v0": lambda o: 2 if o[1] >= 0 else 0,
    "MountainCarContinuous-v0": lambda o: np.float32([1.0 if o[1] >= 0 else -1.0]),
    "Acrobot-v1": lambda o: 2 if o[5] < 0 else 0,
}
"""What keeps the pole up, and swings the others up."""


def _both(name, seed):
    """The two in the same state: ours, jitted, and that of gymnasium."""
    environment = make(name)
    theirs = gymnasium.make(name)
    theirs.reset(seed=seed)
    state, observation = jax.jit(environment.reset)(jax.random.key(seed))
    physics = state.physics[0] if hasattr(state, "physics") else observation
    theirs.unwrapped.state = np.asarray(physics, np.float64)
    return jax.jit(environment.step), state, observation, theirs


@pytest.mark.parametrize("good", [False, True], ids=["random", "good"])
@pytest.mark.parametrize("name", POLICIES)
def test_they_equal_gymnasium_s_step_for_step(name, good):
    random = np.random.default_rng(0)
    longest = 0
    for seed in range(4):
        step, state, observation, theirs = _both(name, seed)
        theirs.action_space.seed(seed)
        for time in range(1, 201):
            action = theirs.action_space.sample()
            if good and random.random() < 0.95:
                action = POLICIES[name](np.asarray(observation))
            state, timestep = step(state, jnp.asarray(action), jax.random.key(0))
            observation, reward, *flags, _ = theirs.step(action)
            assert timestep.observation.dtype == observation.dtype == np.float32
            np.testing.assert_allclose(timestep.observation, observation, rtol=0, atol=1e-5)
            np.testing.assert_allclose(timestep.reward, reward, rtol=0, atol=1e-5)
            assert [bool(timestep.terminated), bool(timestep.truncated)] == flags
            longest = max(longest, time)
            if any(flags):
                break
    assert longest == 200 or (good and "MountainCar" in name) or (not good and "Cart" in name)


@pytest.mark.parametrize("name", POLICIES)
def test_their_spaces_and_limits_are_gymnasium_s(name):
    ours, theirs = make(name), gymnasium.make(name)
    np.testing.assert_allclose(ours.observation_space.low, theirs.observation_space.low)
    np.testing.assert_allclose(ours.observation_space.high, theirs.observation_space.high)
    if isinstance(ours.action_space, Discrete):
        assert ours.action_space.n == theirs.action_space.n
    else:
        assert (ours.action_space.low == theirs.action_space.low).all()
        assert (ours.action_space.high == theirs.action_space.high).all()
    assert ours.max_steps == theirs.spec.max_episode_steps


@pytest.mark.parametrize("name", POLICIES)
def test_they_begin_as_gymnasium_s_do(name):
    theirs = gymnasium.make(name)
    reset = jax.jit(jax.vmap(lambda key: make(name).reset(key)[1]))
    ours = np.asarray(reset(jax.random.split(jax.random.key(0), 2000)))
    other = np.stack([theirs.reset(seed=seed)[0] for seed in range(2000)])
    np.testing.assert_allclose(ours.mean(0), other.mean(0), atol=0.06)
    np.testing.assert_allclose(ours.std(0), other.std(0), atol=0.02)
    np.testing.assert_allclose(ours.min(0), other.min(0), atol=0.01)
    np.testing.assert_allclose(ours.max(0), other.max(0), atol=0.01)


def test_the_limit_of_time_truncates():
    environment = make("Pendulum-v1", max_steps=3)
    state, _ = jax.jit(environment.reset)(jax.random.key(0))
    step = jax.jit(environment.step)
    for expected in (False, False, True):
        state, timestep = step(state, jnp.zeros(1), jax.random.key(0))
        assert bool(timestep.truncated) is expected
        assert not bool(timestep.terminated)


@pytest.mark.parametrize("name", POLICIES)
def test_they_are_drawn(name):
    environment = make(name)
    first, _ = jax.jit(environment.reset)(jax.random.key(0))
    later = first
    step = jax.jit(environment.step)
    for _ in range(10):
        action = jnp.zeros(environment.action_space.shape, environment.action_space.dtype)
        later, _ = step(later, action, jax.random.key(0))
    frames = [environment.frame(state) for state in (first, later)]
    texts = [environment.text(state) for state in (first, later)]
    assert frames[0].dtype == np.uint8
    assert frames[0].shape == frames[1].shape
    assert frames[0].shape[2] == 3
    assert (frames[0] != frames[1]).any()
    assert texts[0] != texts[1]
    lines = [text.splitlines() for text in texts]
    assert len(lines[0]) == len(lines[1])
    assert all(len(line) <= 60 for line in lines[0] + lines[1])
