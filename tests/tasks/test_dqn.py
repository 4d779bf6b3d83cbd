"""DQN through the loop: known values are learnt, a crash changes nothing, seeds are as alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hrm_jax
from hrm_jax import tasks
from hrm_jax.fields import ConfigError
from hrm_jax.rl.environments.probes import PROBES
from hrm_jax.rl.spaces import Box
from hrm_jax.training.loop import run
from hrm_jax.training.metrics import read_metrics

ADAM = {"name": "adamw", "warmup_steps": 0, "learning_rate": 3e-2, "weight_decay": 0.0}
SMALL = {
    "task": "dqn",
    "environment": "Catch",
    "seed": 1,
    "steps": 6,
    "batch_size": 4,
    "train_every": 2,
    "iterations": 3,
    "updates": 2,
    "minibatch_size": 8,
    "replay_size": 100,
    "learning_starts": 40,
    "n_step": 3,
    "target_every": 3,
    "tau": 0.5,
    "epsilon_last": 0.1,
    "epsilon_fraction": 0.5,
    "priority_alpha": 0.6,
    "log_every": 1,
    "eval_every": 3,
    "checkpoint_every": 2,
    "tensorboard": False,
    "eval_episodes": 4,
    "model": {"hidden": [16], "dueling": True},
    "optimizer": {**ADAM, "learning_rate": 1e-3, "lr_min_ratio": 0.1, "ema": 0.9},
}


def _task(**fields):
    return tasks.build(tasks.parse({**SMALL, **fields}))


def _start(task):
    return jax.jit(task.init)(jax.random.key(task.config.seed))


def _equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


LEARNING = {
    **{"steps": 8, "batch_size": 16, "train_every": 2, "iterations": 50, "updates": 2},
    **{"minibatch_size": 64, "replay_size": 4000, "learning_starts": 64, "target_every": 20},
    **{"tau": 1.0, "epsilon_last": 1.0, "gamma": 0.8, "n_step": 1, "priority_alpha": 0.0},
    **{"model": {"hidden": [32]}, "optimizer": {**ADAM, "lr_min_ratio": 0.01}},
}
VARIANTS = {
    "OneStep-probe": {},
    "SeenReward-probe": {"model": {"hidden": [32], "dueling": True}},
    "Endless-probe": {"n_step": 3},
    "NoisyReward-probe": {"priority_alpha": 0.6, "priority_beta_first": 1.0, "huber": 0.0},
    "TwoSteps-probe": {"double": False, "target_every": 1, "tau": 0.05},
}


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_known_values_are_learnt(probe):
    task = _task(**{**LEARNING, **VARIANTS[probe.name]}, environment=probe.name)
    state, step = _start(task), jax.jit(task.step)
    for _ in range(task.config.steps):
        state, _ = step(state, {})
        state = state.replace(step=state.step + 1)
    known = probe().known(task.config.gamma)
    found = task.network.apply({"params": state.params}, known.observations, 1)
    np.testing.assert_allclose(found, known.action_values, atol=0.15)
    if known.action is not None:
        assert task.act(task.weights(state), jnp.asarray(known.observations[:1])).tolist() == [
            known.action
        ]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("dqn") / "run"
    return workdir, run(_task(), workdir, progress=False)


class _Crash(Exception):
    pass


def test_a_crashed_run_goes_on_exactly(straight, tmp_path):
    """Replay, its priorities, the target network and environments included."""
    task = _task()
    evaluate = task.evaluate

    def crash(state):
        raise _Crash

    task.evaluate = crash
    with pytest.raises(_Crash):
        run(task, tmp_path, progress=False)  # saved is step 2
    task.evaluate = evaluate
    result = run(task, tmp_path, progress=False)
    workdir, expected = straight
    parts = ("step", "params", "opt_state", "ema", "carry")
    _equal(*({n: getattr(x.state, n) for n in parts} for x in (result, expected)))
    assert int(result.state.carry.replay.size) == 100
    ours, theirs = (
        [
            {k: v for k, v in line.items() if "second" not in k and "wait" not in k}
            for line in read_metrics(x / "metrics.jsonl")
        ]
        for x in (tmp_path, workdir)
    )
    assert ours == theirs


def test_schedules_follow_the_steps_of_environments(straight):
    lines = [x for x in read_metrics(straight[0] / "metrics.jsonl") if "train/epsilon" in x]
    ticks = np.arange(6 * 6).reshape(6, 6)
    epsilon = 1 - 0.9 * np.minimum(ticks / 18, 1)
    np.testing.assert_allclose([x["train/epsilon"] for x in lines], epsilon.mean(1), rtol=1e-5)
    assert [x["train/env_steps"] for x in lines] == [24, 48, 72, 96, 120, 144]
    assert ["train/loss" in x for x in lines] == [False, True, True, True, True, True]
    rates = [x["train/learning_rate"] for x in lines if "train/learning_rate" in x]
    cosine = 0.5 * (1 + np.cos(np.pi * np.arange(2, 7) / 6))  # though learning starts late
    np.testing.assert_allclose(rates, 1e-3 * (0.1 + 0.9 * cosine), rtol=1e-5)
    state = straight[1].state
    updates = 2 * (6 * 3 - 4)  # the iterations that reach 40 steps, each with 8, and those after
    counts = {int(x) for x in jax.tree.leaves(state.opt_state) if x.dtype == np.int32}
    assert counts == {updates}


def test_the_target_network_is_moved_at_its_updates():
    task = _task(iterations=1, train_every=1, updates=1, steps=40, learning_starts=12)
    state, step = _start(task), jax.jit(task.step)
    _equal(state.params, state.carry.target)
    moves, first = [], state.params
    for number in range(12):
        before = state.carry.target
        state, metrics = step(state, {})
        state = state.replace(step=state.step + 1)
        update = number - 1  # 12 steps are done with the third iteration
        assert (metrics["loss"][1] == 1) == (update >= 1)
        if update < 1:
            _equal(state.params, first)
        if update >= 1 and update % 3 == 0:
            moves.append(update)
            between = jax.tree.map(lambda a, b: 0.5 * (a + b), state.params, before)
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
                state.carry.target,
                between,
            )
        else:
            _equal(state.carry.target, before)
    assert moves == [3, 6, 9]


def test_a_truncated_window_ends_with_the_last_observation():
    task = _task(environment="CartPole-v1", n_step=3, steps=300, learning_starts=7000)
    task.environment = dataclasses.replace(task.environment, max_steps=7)
    state, step = _start(task), jax.jit(task.step)
    for _ in range(4):
        state, _ = step(state, {})
        state = state.replace(step=state.step + 1)
    replay = state.carry.replay
    items = jax.tree.map(lambda x: np.asarray(x)[: int(replay.size)], replay.items)
    steps = np.round(np.log(items.discount) / np.log(task.config.gamma)).astype(int)
    share = np.bincount(steps, minlength=4) / len(steps)
    assert share[0] == 0  # nothing has terminated
    assert (share[1:3] > 0.08).all()
    assert share[3] > 0.5  # of 7 starts, 5 have all three steps
    rewards = np.array([0, 1, 1 + 0.99, 1 + 0.99 + 0.99**2])
    np.testing.assert_allclose(items.reward, rewards[steps], rtol=1e-6)
    # Positions change by the velocity: a reset's observation would not follow.
    moved = items.following[steps == 1][:, 0] - items.observation[steps == 1][:, 0]
    np.testing.assert_allclose(moved, 0.02 * items.observation[steps == 1][:, 1], atol=1e-6)


def test_pictures_stay_bytes():
    """Also where convolutions read them; they are divided by 255 once."""
    task = _task(environment="CartPole-v1", model={"hidden": [8], "filters": [2]})

    def picture(seen):
        pixels = jnp.clip(seen * 50 + 128, 0, 255).astype(jnp.uint8)
        return jnp.broadcast_to(pixels, (5, 4, 4))

    class Pictures(type(task.environment)):
        observation_space = Box(0, 255, (5, 4, 4), np.uint8)

        def reset(self, key):
            state, seen = super().reset(key)
            return state, picture(seen)

        def step(self, state, action, key):
            state, timestep = super().step(state, action, key)
            return state, timestep.replace(observation=picture(timestep.observation))

    task.environment, task.shape = Pictures(), (5, 4, 4)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    after, _ = jax.eval_shape(task.step, shapes, {})
    for items in (shapes.carry.replay.items, after.carry.replay.items):
        assert items.observation.dtype == items.following.dtype == jnp.uint8
        assert items.observation.shape == (100, 5, 4, 4)
    assert shapes.params["body"]["conv_0"]["kernel"].shape == (3, 3, 4, 2)
    params = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), shapes.params)
    white = task._values(params, jnp.full((1, 5, 4, 4), 255, jnp.uint8))
    ones = task.network.apply({"params": params}, jnp.ones((1, 5, 4, 4)), 3)
    np.testing.assert_array_equal(white, ones)


def test_seeds_side_by_side_are_as_alone(straight, tmp_path):
    many = run(_task(seed=0, seeds=2), tmp_path, progress=False)
    for part in ("params", "opt_state", "carry"):
        jax.tree.map(
            lambda both, one: np.testing.assert_allclose(both[1], one, atol=1e-5),
            getattr(many.state, part),
            getattr(straight[1].state, part),
        )
    assert many.figures["eval/return_by_seed"][1] == straight[1].figures["eval/return"]


def test_a_policy_is_loaded_and_acts(straight):
    policy = hrm_jax.load(straight[0])
    assert set(policy.variables) == {"params"}
    _equal(policy.variables["params"], jax.tree.map(np.asarray, straight[1].state.ema))
    batch = np.random.default_rng(0).normal(size=(64, 10, 5)).astype(np.float32)
    values = policy._task._values(policy.variables["params"], jnp.asarray(batch))
    best = np.asarray(values.argmax(-1))
    np.testing.assert_array_equal(policy.act(batch), best)
    others = np.mean(
        [policy.act(batch, deterministic=False, seed=seed) != best for seed in range(40)]
    )
    assert 0.05 < others < 0.085  # two of three random actions: of epsilon_last, 0.1


def test_bad_input_names_the_field():
    for fields, message in (
        ({"learning_starts": 8}, r"config\.learning_starts: expected 12 \(n_step × batch_size\)"),
        ({"learning_starts": 145}, r"config\.learning_starts: .* to 144 \(steps of the run\)"),
        ({"replay_size": 7}, r"config\.replay_size: expected at least 8, an iteration's"),
        ({"priority_alpha": 0.0, "priority_beta_first": 0.7}, "priority_beta_first: 0.7 has no ef"),
        ({"priority_alpha": 0.0, "priority_offset": 1.0}, "priority_offset: 1.0 has no effect"),
        ({"tau": 0.0}, r"config\.tau: expected 0 < x <= 1, got 0"),
        ({"epsilon_last": 1.5}, r"config\.epsilon_last: expected 0\.\.1"),
        ({"n_step": 0}, r"config\.n_step: expected at least 1"),
        ({"microbatch_size": 2}, "microbatch_size: 2 has no effect"),
        ({"environment": "Pendulum-v1"}, r"config\.environment: Pendulum-v1: DQN .* got Box"),
    ):
        with pytest.raises(ConfigError, match=message):
            _task(**fields)
