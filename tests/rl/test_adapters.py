"""gymnax and gymnasium through our protocol; both libraries are the judges."""

import copy
import functools
import sys
import warnings

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces as their_spaces
from jax.errors import JaxRuntimeError
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hrm_jax.fields import ConfigError
from hrm_jax.rl.environments import NAMES, make, step_autoreset
from hrm_jax.rl.spaces import Box, Discrete, MultiDiscrete


class Told(gymnasium.Env):
    """An environment of the spaces that it is told, which says back what was done in it."""

    metadata = {"render_modes": ["rgb_array", "ansi"]}  # noqa: RUF012

    def __init__(self, observations, actions, reward=1.0, render_mode=None):
        self.observation_space, self.action_space = observations, actions
        self.reward, self.render_mode = reward, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.actions = []
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.actions.append(action)
        return self.observation_space.sample(), self.reward, len(self.actions) == 7, False, {}

    def render(self):
        if self.render_mode == "ansi":
            return f"after {len(self.actions)}"
        return np.full((4, 4, 3), len(self.actions), np.uint8)


gymnasium.register("Told-v0", Told, max_episode_steps=9)
gymnasium.register("Endless-v0", Told)

IMAGE = their_spaces.Box(0, 255, (5, 4, 3), np.uint8)
TWO = their_spaces.Discrete(2)


def _told(observations=IMAGE, actions=TWO, **options):
    return make("gymnasium:Told-v0", observations=observations, actions=actions, **options)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _rollout(environment, start, key, steps):
    """States, observations and timesteps of environments [N] that are stepped at random."""
    count = len(jax.tree.leaves(start)[0])

    def step(carry, key):
        keys = jax.random.split(key, count)
        actions = jax.vmap(environment.action_space.sample)(keys)
        state, timestep, observation = jax.vmap(lambda *row: step_autoreset(environment, *row))(
            carry[0], actions, keys
        )
        return (state, observation), (timestep, observation)

    return jax.lax.scan(step, start, jax.random.split(key, steps))


def _begin(environment, count):
    return jax.jit(jax.vmap(environment.reset))(jax.random.split(jax.random.key(0), count))


def _equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    "name", ["Breakout-MinAtar", "CartPole-v1", "UmbrellaChain-bsuite", "FrozenLake-misc"]
)
def test_gymnax_s_environments_are_the_same_here(name):
    theirs, parameters = gymnax.make(name)
    ours = make(f"gymnax:{name}")
    step, their_step = jax.jit(ours.step), jax.jit(theirs.step_env)
    state, observation = ours.reset(jax.random.key(0))
    their_observation, their_state = theirs.reset(jax.random.key(0), parameters)
    ended = False
    for key in jax.random.split(jax.random.key(1), 60):
        np.testing.assert_allclose(observation, their_observation, rtol=1e-6, atol=1e-6)
        assert bool(ours.observation_space.contains(observation))
        action = ours.action_space.sample(key)
        state, timestep = step(state, action, key)
        their_observation, their_state, reward, terminated, _ = their_step(
            key, their_state, action, parameters
        )
        observation = timestep.observation
        assert float(timestep.reward) == float(reward)
        assert bool(timestep.terminated) == bool(terminated)
        ended |= bool(timestep.ended)
        if timestep.ended:
            break
    assert ended or name == "UmbrellaChain-bsuite"


def test_what_types_gymnax_has_are_kept():
    environment = make("Breakout-MinAtar")
    assert environment.name == "Breakout-MinAtar"
    assert environment.observation_space == Box(0, 1, (10, 10, 4), bool)
    start = _begin(environment, 3)
    assert start[1].dtype == bool
    (state, _), (timestep, _) = _rollout(environment, start, jax.random.key(1), 40)
    assert timestep.observation.dtype == bool
    assert timestep.terminated.any()
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype and x.shape == y.shape, start[0], state)
    assert all(jax.tree.leaves(same))
    assert make("gymnax:FourRooms-misc").observation_space.dtype == np.int32
    assert make("gymnax:FrozenLake-misc").observation_space == Discrete(16)
    assert make("gymnax:Pendulum-v1").action_space == Box(-2, 2, (1,))


def test_gymnax_s_limit_truncates():
    environment = make("Freeway-MinAtar", max_steps=2)
    step = jax.jit(environment.step)
    state, _ = jax.jit(environment.reset)(jax.random.key(0))
    for truncated in (False, True):
        state, timestep = step(state, jnp.int32(0), jax.random.key(0))
        assert bool(timestep.truncated) is truncated
        assert not bool(timestep.terminated)


def test_minatar_is_drawn_and_others_are_not():
    environment = make("Breakout-MinAtar")
    state, _ = environment.reset(jax.random.key(0))
    assert environment.frame(state).shape == (160, 160, 3)
    rows = environment.text(state).split("\n")
    assert rows[1] == " ".join("3" * 10)  # bricks
    assert rows[9] == "· · · · 0 · · · · ·"  # the paddle
    other = make("gymnax:CartPole-v1")
    state, _ = other.reset(jax.random.key(0))
    assert other.frame(state) is None
    assert "theta" in other.text(state)


def test_gymnasium_s_environments_are_the_same_here():
    """Each of a vector, vmapped and scanned, with its seeds and actions given to gymnasium."""
    environment = make("gymnasium:CartPole-v1", max_steps=15)
    start = _begin(environment, 3)
    rolled = _rollout(environment, start, jax.random.key(1), 50)
    (timesteps, seen) = jax.tree.map(np.asarray, rolled[1])
    theirs = gymnasium.make("CartPole-v1", max_episode_steps=15)
    seeds = np.asarray(start[0].seed)
    assert len(set(seeds.tolist())) == 3
    assert timesteps.terminated.any()
    assert timesteps.truncated.any()
    observation = start[1]
    for index in range(3):
        np.testing.assert_array_equal(theirs.reset(seed=int(seeds[index]))[0], observation[index])
        for time, key in enumerate(jax.random.split(jax.random.key(1), 50)):
            action = environment.action_space.sample(jax.random.split(key, 3)[index])
            expected, reward, terminated, truncated, _ = theirs.step(int(action))
            np.testing.assert_array_equal(timesteps.observation[time, index], expected)
            assert timesteps.reward[time, index] == reward
            assert timesteps.terminated[time, index] == terminated
            assert timesteps.truncated[time, index] == truncated
            if terminated or truncated:
                assert (seen[time, index] != expected).any()  # the next episode's
                break
            np.testing.assert_array_equal(seen[time, index], expected)


def test_a_run_goes_on_where_nothing_of_the_host_is_left():
    """As after a kill: another object, whose environments have never been reset."""
    first = make("gymnasium:Pendulum-v1", max_steps=25)
    middle, _ = _rollout(first, _begin(first, 4), jax.random.key(1), 40)
    saved = jax.tree.map(np.array, middle)
    end = _rollout(first, middle, jax.random.key(2), 40)
    _equal(end, _rollout(make("gymnasium:Pendulum-v1", max_steps=25), saved, jax.random.key(2), 40))
    _equal(end, _rollout(first, saved, jax.random.key(2), 40))  # back in time


def test_evaluation_amid_training_changes_nothing():
    environment = make("gymnasium:Pendulum-v1", max_steps=25)
    middle, _ = _rollout(environment, _begin(environment, 2), jax.random.key(1), 10)
    plain = _rollout(environment, middle, jax.random.key(2), 20)
    again, _ = _rollout(environment, _begin(environment, 2), jax.random.key(1), 10)
    for _ in range(3):
        _rollout(environment, _begin(environment, 5), jax.random.key(3), 5)
    _equal(plain, _rollout(environment, again, jax.random.key(2), 20))


def test_rows_may_be_divided_and_seeds_vmapped():
    environment = make("gymnasium:Pendulum-v1", max_steps=10)
    start = _begin(environment, 4)
    expected = _rollout(environment, start, jax.random.key(1), 12)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    divided = jax.device_put(start, NamedSharding(mesh, PartitionSpec("data")))
    _equal(
        expected,
        _rollout(environment, divided, jax.random.key(1), 12),
    )

    def run(key):
        start = jax.vmap(environment.reset)(jax.random.split(key, 2))
        return _rollout(environment, start, key, 5)

    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(run))(keys)
    _equal(jax.jit(run)(keys[2]), jax.tree.map(lambda x: x[2], together))


SPACES = [
    (their_spaces.Discrete(3, start=-1), Discrete(3)),
    (their_spaces.MultiDiscrete([2, 3], start=[1, 0]), MultiDiscrete((2, 3))),
    (their_spaces.MultiDiscrete([[2, 3], [4, 5]]), MultiDiscrete((2, 3, 4, 5))),
    (their_spaces.MultiBinary(3), MultiDiscrete((2, 2, 2))),
    (their_spaces.Box(-np.inf, np.array([np.inf, 3]), (2,), np.float64), Box(-np.inf, [np.inf, 3])),
    (IMAGE, Box(0, 255, (5, 4, 3), np.uint8)),
    (their_spaces.Box(-3, 2**20, (2,), np.int64), Box(-3, 2**20, (2,), np.int32)),
]


@pytest.mark.parametrize(("theirs", "ours"), SPACES, ids=lambda space: str(space)[:40])
def test_gymnasium_s_spaces(theirs, ours):
    """They are sent back and forth; `Told` asserts that actions belong to its space."""
    environment = _told(copy.deepcopy(theirs), theirs)
    assert environment.observation_space == environment.action_space == ours
    state, observation = environment.reset(jax.random.key(0))
    space = copy.deepcopy(theirs)
    space.seed(int(state.seed))
    for key in jax.random.split(jax.random.key(1), 4):
        expected = np.asarray(space.sample()) - getattr(space, "start", 0)
        np.testing.assert_array_equal(observation, expected.reshape(ours.shape).astype(ours.dtype))
        assert bool(ours.contains(observation))
        state, timestep = environment.step(state, ours.sample(key), key)
        observation = timestep.observation


def test_gymnasium_s_pictures():
    environment = _told()
    state, _ = environment.reset(jax.random.key(0))
    for time in range(4):
        assert (environment.frame(state) == time).all()
        assert environment.text(state) == f"after {time}"
        state, _ = environment.step(state, 1, jax.random.key(0))
    cartpole = make("gymnasium:CartPole-v1")
    state, _ = cartpole.reset(jax.random.key(0))
    assert cartpole.text(state) == f"gymnasium:CartPole-v1  seed {int(state.seed)}  step 0"


def test_pictures_that_need_a_package_are_none_with_a_warning(monkeypatch):
    environment = _told()
    state, _ = environment.reset(jax.random.key(0))

    def fails(self):
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")

    monkeypatch.setattr(Told, "render", fails)
    with pytest.warns(UserWarning, match="gymnasium:Told-v0: no pictures: pygame is not installed"):
        assert environment.frame(state) is None


@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_a_reward_that_is_no_number_names_the_environment(reward):
    environment = _told(reward=reward)
    state, _ = environment.reset(jax.random.key(0))
    expected = f"gymnasium:Told-v0: reward {reward} in step 1 of the episode with seed"
    with pytest.raises(JaxRuntimeError, match=expected):
        jax.block_until_ready(jax.jit(environment.step)(state, 0, jax.random.key(0)))


@pytest.mark.parametrize("wrong", [np.zeros(3, np.uint8), np.full((5, 4, 3), 256)])
def test_an_observation_that_does_not_fit_is_refused(wrong, monkeypatch):
    environment = _told()
    monkeypatch.setattr(IMAGE, "sample", lambda: wrong)
    expected = rf"gymnasium:Told-v0: an observation of shape .* to {wrong.max()}; expected Box\(0,"
    with pytest.raises(JaxRuntimeError, match=expected):
        environment.reset(jax.random.key(0))


def test_numbers_beyond_int32_are_refused():
    environment = _told(their_spaces.Box(2**40, 2**41, (2,), np.int64))
    assert environment.observation_space.dtype == np.int32
    with pytest.raises(JaxRuntimeError, match=r"an observation of shape \(2,\), from \d{13} to"):
        environment.reset(jax.random.key(0))


def test_what_does_not_repeat_itself_is_found():
    environment = _told()
    state, _ = environment.reset(jax.random.key(0))
    later = state.replace(time=jnp.int32(9))  # it ends after 7
    with pytest.raises(JaxRuntimeError, match=r"Told-v0: the episode with seed .* ended in step 7"):
        environment.step(later, 0, jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CartPole", {}, r"unknown environment 'CartPole'; expected one of CartPole-v1, "),
        ("nowhere:Walk", {}, r"environment nowhere:Walk: No module named 'nowhere'"),
        ("json:JSONDecoder", {}, r"environment json:JSONDecoder: expected a class derived from"),
        (
            "json:Nothing",
            {},
            r"environment json:Nothing: expected a class derived from .* got None",
        ),
        ("CartPole-v1", {"max_steps": 0}, r"CartPole-v1.max_steps: expected at least 1, got 0"),
        ("CartPole-v1", {"max_steps": 9.5}, r"CartPole-v1.max_steps: expected int, got 9.5"),
        ("CartPole-v1", {"steps": 3}, r"unknown config field 'CartPole-v1.steps'"),
        ("gymnax:Nothing", {}, r"unknown environment 'gymnax:Nothing'; gymnax has CartPole-v1,"),
        ("Breakout-MinAtar", {"speed": 3}, r"Breakout-MinAtar: .*'speed'; its parameters are max"),
        ("gymnasium:Nothing-v0", {}, r"gymnasium:Nothing-v0: Environment `Nothing` doesn't exist"),
        ("gymnasium:CartPole-v1", {"speed": 3}, r"gymnasium:CartPole-v1: .*'speed'"),
        (
            "gymnasium:Endless-v0",
            {"observations": IMAGE, "actions": TWO},
            r"gymnasium:Endless-v0: has no limit of time; give it max_steps",
        ),
        (
            "gymnasium:Told-v0",
            {"observations": their_spaces.Dict({"image": IMAGE}), "actions": TWO},
            r"observations of gymnasium:Told-v0: expected a space Discrete, .*, got Dict",
        ),
        (
            "gymnasium:Told-v0",
            {"observations": IMAGE, "actions": their_spaces.Tuple([TWO])},
            r"actions of gymnasium:Told-v0: expected a space Discrete, .*, got Tuple",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **options)


@pytest.mark.parametrize("name", ["gymnax:CartPole-v1", "gymnasium:CartPole-v1"])
def test_a_missing_package_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name.partition(":")[0], None)
    with pytest.raises(ImportError, match=r"pip install 'hrm_jax\[rl\]'"):
        make(name)


def test_what_an_environment_of_gymnasium_needs_is_named():
    if sys.modules.get("mujoco"):
        pytest.skip("mujoco is installed")
    with pytest.raises(ImportError, match="gymnasium:Ant-v5: MuJoCo is not installed"):
        make("gymnasium:Ant-v5")


def test_every_name_is_made():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = [make(name) for name in NAMES]
    assert [environment.name for environment in made] == list(NAMES)
