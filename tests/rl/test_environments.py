"""What holds of every environment, and how episodes follow one another."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from hrm_jax.rl.environments import NAMES, Environment, Timestep, make, step_autoreset
from hrm_jax.rl.spaces import Box, Discrete

OURS = [name for name in NAMES if not name.endswith("MinAtar")]


class Counting(struct.PyTreeNode):
    key: jax.Array
    count: jax.Array


@dataclasses.dataclass(frozen=True)
class Counter(Environment):
    """Counts to 3 from a random number under 1, and carries a key."""

    name = "Counter"
    observation_space = Box(0, 4, ())
    action_space = Discrete(2)

    def reset(self, key):
        count = jax.random.uniform(key)
        return Counting(key, count), count

    def step(self, state, action, key):
        state = Counting(state.key, state.count + 1)
        ended = state.count >= 3
        return state, Timestep(state.count, jnp.float32(1), ended & (action == 1), ended)


def test_an_episode_s_last_observation_is_not_the_next_one_s_first():
    environment = Counter()
    state, observation = environment.reset(jax.random.key(0))
    step = jax.jit(lambda *row: step_autoreset(environment, *row))
    for number, key in enumerate(jax.random.split(jax.random.key(1), 6), start=1):
        state, timestep, following = step(state, jnp.int32(number == 3), key)
        np.testing.assert_allclose(timestep.observation, observation + 1)
        assert bool(timestep.truncated) is (number % 3 == 0)
        assert bool(timestep.terminated) is (number == 3)
        assert bool(timestep.ended) is (number % 3 == 0)
        if timestep.ended:
            _, expected = environment.reset(state.key)
            assert float(following) == float(expected) == float(state.count) < 1
        else:
            assert float(following) == float(timestep.observation) == float(state.count)
        observation = following


def test_every_episode_begins_anew():
    environment = Counter()
    keys = jax.random.split(jax.random.key(0), 4)
    state, _ = jax.vmap(environment.reset)(keys)
    step = jax.jit(jax.vmap(lambda *row: step_autoreset(environment, *row)))
    begun = [state.count]
    for number in range(1, 7):
        keys = jax.random.split(jax.random.key(number), 4)
        state, timestep, observation = step(state, jnp.zeros(4, jnp.int32), keys)
        if timestep.ended.any():
            begun.append(observation)
    assert len(np.unique(begun)) == 12


def test_a_state_without_a_picture_is_told_in_words():
    environment = make("OneStep-probe")
    state, _ = environment.reset(jax.random.key(0))
    assert environment.frame(state) is None
    assert environment.text(state) == ".observation [0.]\n.time 0"


def test_one_s_own_is_made_by_module_and_class():
    name = "hrm_jax.rl.environments.catch:Catch"
    assert make(name, rows=4) == make("Catch", rows=4)


@pytest.mark.parametrize("name", OURS)
def test_the_protocol(name):
    """Types never change, so that it can be scanned; what is seen belongs to the space; and the
    same key gives the same episode."""
    environment = make(name)
    assert hash(environment) == hash(make(name))

    def run(key):
        def step(carry, key):
            state, observation = carry
            action = environment.action_space.sample(key)
            state, timestep, observation = step_autoreset(environment, state, action, key)
            return (state, observation), timestep

        return jax.lax.scan(step, environment.reset(key), jax.random.split(key, 30))

    keys = jax.random.split(jax.random.key(0), 2)[jnp.array([0, 1, 1])]
    (state, _), timesteps = jax.jit(jax.vmap(run))(keys)
    kinds = jax.tree.map(lambda x: (x.shape[1:], x.dtype), state)
    begun, _ = jax.eval_shape(environment.reset, keys[0])
    begun = jax.tree.map(lambda x: (x.shape, x.dtype), begun)
    assert kinds == begun
    seen = timesteps.observation.reshape(-1, *environment.observation_space.shape)
    assert seen.dtype == environment.observation_space.dtype
    assert bool(jax.vmap(environment.observation_space.contains)(seen).all())
    assert timesteps.reward.dtype == jnp.float32
    assert timesteps.terminated.dtype == timesteps.truncated.dtype == bool
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[1], x[2]), timesteps)
