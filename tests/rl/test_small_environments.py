"""Catch, the grid world and the probes: what is known of them holds when they are played."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.rl.environments import make
from hrm_jax.rl.environments.grid_world import GridWorld
from hrm_jax.rl.environments.probes import PROBES


def _episodes(environment, policy, gamma, steps, count):
    """First observations [count, …] of whole episodes, and their discounted returns [count], of a
    policy (of an observation)."""

    def episode(key):
        def step(carry, key):
            state, observation, discount, total = carry
            state, timestep = environment.step(state, policy(observation), key)
            total += discount * timestep.reward
            discount *= gamma * ~timestep.ended
            return (state, timestep.observation, discount, total), None

        keys = jax.random.split(key, steps + 1)
        state, observation = environment.reset(keys[0])
        begin = (state, observation, jnp.float32(1), jnp.float32(0))
        return observation, jax.lax.scan(step, begin, keys[1:])[0][3]

    keys = jax.random.split(jax.random.key(0), count)
    return map(np.asarray, jax.jit(jax.vmap(episode))(keys))


def _returns(*arguments):
    return list(_episodes(*arguments))[1]


def test_who_follows_the_ball_catches_it():
    environment = make("Catch")

    def follow(board):
        ball, paddle = jnp.argmax(board[:-1].sum(0)), jnp.argmax(board[-1])
        return 1 + jnp.sign(ball - paddle)

    assert (_returns(environment, follow, 1.0, 9, 500) == 1).all()
    still = _returns(environment, lambda board: 1, 1.0, 9, 2000)
    assert abs(still.mean() + 0.6) < 0.1  # it lands in one column of five


def test_catch_ends_when_the_ball_lands():
    environment = make("Catch", rows=4, columns=3)
    state, observation = environment.reset(jax.random.key(0))
    assert observation.shape == (4, 3)
    assert observation.sum() == 2
    ended = []
    for _ in range(3):
        state, timestep = environment.step(state, 1, jax.random.key(0))
        ended.append(bool(timestep.terminated))
    assert ended == [False, False, True]
    assert float(timestep.reward) == (1.0 if int(state.ball) == 1 else -1.0)


def test_the_grid_world_has_the_values_of_the_book():
    """Russell and Norvig, figure of the utilities of the 4×3 world with γ = 1 and R = -0.04."""
    book = [[0.812, 0.868, 0.918, 0], [0.762, 0, 0.660, 0], [0.705, 0.655, 0.611, 0.388]]
    np.testing.assert_allclose(GridWorld().values(1.0), book, atol=6e-4)


def _walk(actions):
    actions = jnp.asarray(actions.ravel())
    return lambda seen: actions[seen.argmax()]


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_optimal_actions_get_the_optimal_value(gamma):
    environment = GridWorld()
    best = environment.action_values(gamma).argmax(-1)
    returns = _returns(environment, _walk(best), gamma, 100, 20_000)
    error = 4 * returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - environment.values(gamma)[2, 0]) < error < 0.02


def test_other_actions_get_less():
    environment = GridWorld(slip=0.5, layout=("..P..", "S#..G", "....P"))
    *_, second, best = np.moveaxis(environment.action_values(0.9).argsort(-1), -1, 0)
    worth = [_returns(environment, _walk(a), 0.9, 80, 4000).mean() for a in (best, second)]
    assert worth[0] > worth[1] + 0.05


def test_without_slips_the_way_is_the_shortest():
    environment = make("GridWorld", layout=("S..", "##.", "G.."), slip=0.0, step_reward=0.0)
    values = environment.values(0.5)
    np.testing.assert_allclose(values[0], 0.5 ** np.array([5, 4, 3]))
    np.testing.assert_allclose(values[2], [0, 1, 0.5])


def test_a_walk_begins_on_s_or_anywhere():
    keys = jax.random.split(jax.random.key(0), 300)
    cells = jax.vmap(GridWorld().reset)(keys)[0].cell
    assert set(np.asarray(cells).tolist()) == {8}
    anywhere = GridWorld(layout=("..G", "#.P"))
    assert set(np.asarray(jax.vmap(anywhere.reset)(keys)[0].cell).tolist()) == {0, 1, 4}


def test_senseless_worlds_are_refused():
    with pytest.raises(ConfigError, match=r"GridWorld.layout: rows of different lengths"):
        make("GridWorld", layout=("..", "G"))
    with pytest.raises(ConfigError, match=r"GridWorld.layout: expected G, P, #, S and \., got"):
        make("GridWorld", layout=("x.G",))
    with pytest.raises(ConfigError, match=r"GridWorld.layout: no goal, or nowhere to begin"):
        make("GridWorld", layout=("..P",))
    with pytest.raises(ConfigError, match=r"GridWorld.slip: expected 0 to 1, got 2.0"):
        make("GridWorld", slip=2.0)
    with pytest.raises(ConfigError, match=r"Catch.rows: expected at least 2, got 1"):
        make("Catch", rows=1)
    with pytest.raises(ValueError, match=r"do not converge with gamma=1.0"):
        GridWorld(step_reward=0.5).values(1.0)


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("kind", PROBES, ids=lambda kind: kind.name)
def test_a_probe_is_worth_what_it_says(kind, continuous):
    """Monte Carlo with the best action, over so many steps that truncation does not count."""
    gamma = 0.8
    options = {"max_steps": 100} if kind.name.startswith("Endless") else {}
    environment = kind(continuous=continuous, **options)
    known = environment.known(gamma)
    best = known.action or 0
    action = jnp.float32([best]) if continuous else jnp.int32(best)
    assert bool(environment.action_space.contains(action))
    assert bool(jax.vmap(environment.observation_space.contains)(known.observations).all())
    seen, returns = _episodes(environment, lambda _: action, gamma, 60, 4000)
    found = [returns[(seen == x).all(1)].mean() for x in np.unique(seen, axis=0)]
    assert len(found) == (2 if kind.name.startswith("Seen") else 1)
    np.testing.assert_allclose(found, known.values[: len(found)], atol=0.06)
    if not continuous:
        other = _returns(environment, lambda _: 1 - action, gamma, 60, 4000).mean()
        expected = known.action_values[: len(found), 1 - int(action)].mean()
        np.testing.assert_allclose(other, expected, atol=0.06)


def test_the_endless_probe_is_truncated_and_never_terminates():
    environment = make("Endless-probe", max_steps=2)
    state, _ = environment.reset(jax.random.key(0))
    for truncated in (False, True):
        state, timestep = environment.step(state, 0, jax.random.key(0))
        assert bool(timestep.truncated) is truncated
        assert not bool(timestep.terminated)


@pytest.mark.parametrize("name", ["Catch", "GridWorld"])
def test_boards_are_drawn(name):
    environment = make(name)
    state, _ = environment.reset(jax.random.key(0))
    after, _ = environment.step(state, 0, jax.random.key(0))
    frames = [environment.frame(x) for x in (state, after)]
    assert frames[0].shape == frames[1].shape
    assert (frames[0] != frames[1]).any()
    text, later = environment.text(state), environment.text(after)
    assert text.count("●") == later.count("●") == 1
    assert text != later
