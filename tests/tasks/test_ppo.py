"""PPO through the loop: resumes exactly, seeds are as alone, statistics stay in evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hrm_jax
from hrm_jax import tasks
from hrm_jax.fields import ConfigError
from hrm_jax.rl.environments.probes import PROBES
from hrm_jax.tasks.rl.task import bootstrap, interquartile_mean
from hrm_jax.training import loop
from hrm_jax.training.loop import run
from hrm_jax.training.metrics import read_metrics
from hrm_jax.training.sharding import make_mesh
from hrm_jax.training.workdir import WorkdirError

SMALL = {
    "task": "ppo",
    "steps": 6,
    "batch_size": 8,
    "rollout_steps": 16,
    "iterations": 2,
    "epochs": 2,
    "minibatches": 2,
    "log_every": 1,
    "eval_every": 3,
    "checkpoint_every": 2,
    "tensorboard": False,
    "eval_episodes": 4,
    "model": {"hidden": [16]},
    "normalize_observations": True,
    "normalize_rewards": True,
    "optimizer": {"name": "adamw", "warmup_steps": 0, "learning_rate": 1e-3, "weight_decay": 0.0},
}


def _task(**fields):
    return tasks.build(tasks.parse({**SMALL, **fields}))


def _equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("ppo") / "run"
    return workdir, run(_task(), workdir, progress=False)


PROBED = {
    **{"steps": 60, "batch_size": 16, "rollout_steps": 8, "iterations": 1, "gamma": 0.8},
    **{"epochs": 4, "minibatches": 1, "normalize_observations": False, "normalize_rewards": False},
    "optimizer": {**SMALL["optimizer"], "learning_rate": 1e-2, "lr_min_ratio": 0.01},
}


@pytest.mark.parametrize(
    ("probe", "continuous"),
    [*((probe, False) for probe in PROBES), *((probe, True) for probe in PROBES[3:])],
    ids=lambda x: getattr(x, "name", x),
)
def test_known_values_are_learnt(probe, continuous, monkeypatch):
    environment = probe(continuous=continuous)
    monkeypatch.setattr("hrm_jax.rl.environments.make", lambda name: environment)
    model = {"hidden": [32], **({"log_std": -1.0} if continuous else {})}
    task = _task(**PROBED, model=model, environment=probe.name)
    state, step = jax.jit(task.init)(jax.random.key(0)), jax.jit(task.step)
    for _ in range(task.config.steps):
        state, _ = step(state, {})
        state = state.replace(step=state.step + 1)
    known, weights = environment.known(task.config.gamma), task.weights(state)
    seen = jnp.asarray(known.observations)
    np.testing.assert_allclose(task.value(weights, seen), known.values, atol=0.15)
    if known.action is not None:
        np.testing.assert_allclose(task.act(weights, seen[:1])[0], known.action, atol=0.1)


class _Crash(Exception):
    pass


def test_a_crashed_run_goes_on_exactly(straight, tmp_path):
    """Environments in the middle of their episodes, statistics and schedules included."""
    task = _task(clip_final_ratio=1.0)
    evaluate = task.evaluate

    def crash(state):
        raise _Crash

    task.evaluate = crash
    with pytest.raises(_Crash):
        run(task, tmp_path, progress=False)  # saved is step 2
    task.evaluate = evaluate
    result = run(task, tmp_path, progress=False)
    workdir, expected = straight
    parts = ("params", "opt_state", "carry")
    _equal(*({n: getattr(x.state, n) for n in parts} for x in (result, expected)))
    ours, theirs = (
        [
            line["train/return"]
            for line in read_metrics(x / "metrics.jsonl")
            if "train/return" in line
        ]
        for x in (tmp_path, workdir)
    )
    assert ours == theirs
    lines = read_metrics(workdir / "metrics.jsonl")
    assert [x["train/env_steps"] for x in lines if "train/env_steps" in x][-1] == 6 * 2 * 16 * 8


def _divided(task, state):
    """Whether the step and the evaluation are, over four devices."""
    with jax.set_mesh(make_mesh()):
        step = jax.make_jaxpr(lambda state: task.step(state, {}))(state)
        evaluation = jax.make_jaxpr(task.over_seeds(task._evaluation))(task.weights(state))
    return ["shard_map" in str(x) for x in (step, evaluation)]


@pytest.mark.parametrize(
    ("more", "rows"),
    [
        ({}, 2),
        ({"batch_size": 6, "eval_episodes": 3}, 6),  # what they cannot share stays whole
        ({"seeds": 2, "mesh": {"fsdp": 2, "smallest": 0}}, 2),
    ],
)
def test_environments_are_divided_over_the_devices(more, rows, straight, tmp_path, monkeypatch):
    """The numbers are those of one device."""
    task, workdir, result = _task(**more), *straight
    if more:
        workdir = tmp_path / "four"
        result = run(task, workdir, progress=False)
    assert _divided(task, result.state) == [True, True]
    for array in jax.tree.leaves(result.state.carry.running):
        assert len(array.sharding.device_set) == 4
        assert array.addressable_shards[0].data.shape["seeds" in more] == rows
    monkeypatch.setattr(loop, "make_mesh", lambda config: make_mesh(devices=jax.devices()[:1]))
    alone = run(task, tmp_path / "one", progress=False)
    for name in ("params", "carry"):
        jax.tree.map(
            lambda one, four: np.testing.assert_allclose(one, four, rtol=1e-5, atol=1e-5),
            *(getattr(x.state, name) for x in (alone, result)),
        )
    assert alone.figures == result.figures


def test_the_host_s_environments_are_not_divided():
    task = _task(environment="gymnasium:CartPole-v1", max_steps=9)
    state = task.init(jax.random.key(0))
    assert _divided(task, state) == [False, False]
    assert task.carry_spec(state.carry) is None


def test_seeds_side_by_side_are_as_alone(straight, tmp_path):
    many = run(_task(seeds=2), tmp_path, progress=False)
    alone = straight[1].state
    jax.tree.map(
        lambda both, one: np.testing.assert_allclose(both[0], one, atol=1e-5),
        many.state.params,
        alone.params,
    )
    by_seed = many.figures["eval/return_by_seed"]
    assert by_seed[0] == straight[1].figures["eval/return"]
    low, iqm, high = (many.figures[f"eval/return_iqm{x}"] for x in ("_low", "", "_high"))
    assert low <= iqm <= high
    policy = hrm_jax.load(tmp_path)
    first, second = policy.act(np.ones(4)), policy.seed(1)
    _equal(second.variables["params"]["policy_head"]["bias"],
           np.asarray(many.state.params["policy_head"]["bias"][1]))  # fmt: skip
    assert first in (0, 1)


def test_the_ratio_is_one_before_the_first_update():
    """Though observations are normalised, and continuous actions clipped for the environment."""
    task = _task(environment="Pendulum-v1", epochs=1, minibatches=1, iterations=1)
    state = jax.jit(task.init)(jax.random.key(0))
    for _ in range(3):
        state, metrics = jax.jit(task.step)(state, {})
        total, count = metrics["kl"]
        assert abs(total / count) < 1e-6
        assert metrics["clip_fraction"][0] == 0


def test_evaluation_and_acting_change_nothing(straight):
    task = _task()
    state = straight[1].state
    before = jax.tree.map(np.asarray, state.carry)
    first, second = task.evaluate(state), task.evaluate(state)
    assert first == second
    _equal(before, jax.tree.map(np.asarray, state.carry))
    policy = hrm_jax.load(straight[0])
    jax.tree.map(np.testing.assert_array_equal, policy.variables, task.weights(state))
    played = policy.episodes(5, seed=3)
    assert played.ended.all()
    assert (played.length == played.total).all()
    moments = list(policy.watch(seed=1))
    assert moments[-1].ended
    assert sum(x.reward for x in moments) == len(moments) - 1
    batch = np.zeros((3, 4), np.float32)
    np.testing.assert_array_equal(policy.act(batch), np.full(3, policy.act(batch[0])))
    drawn = [policy.act(np.zeros(4), deterministic=False, seed=i) for i in range(40)]
    assert set(map(int, drawn)) == {0, 1}


def test_updates_end_where_the_policy_has_moved_far():
    task = _task(target_kl=1e-6, epochs=4)
    state = jax.jit(task.init)(jax.random.key(0))
    new, metrics = jax.jit(task.step)(state, {})
    made, possible = metrics["updates"]
    assert 2 <= made < possible == 2 * 4 * 2
    counts = [x for x in jax.tree.leaves(new.opt_state) if jnp.issubdtype(x.dtype, jnp.integer)]
    assert counts
    assert all(int(x) == possible for x in counts)


def test_interquartile_mean_and_its_interval():
    scores = np.array([0.0, 1, 2, 3, 4, 5, 6, 1000])
    assert interquartile_mean(scores) == 3.5
    low, high = bootstrap(scores)
    assert low < 3.5 < high
    assert bootstrap(np.full(5, 7.0)) == (7, 7)


def test_bad_input_names_the_field(straight, tmp_path):
    for fields, message in {
        "minibatches": ({"minibatches": 3}, "config.minibatches: 3 does not divide the 128"),
        "environment": ({"environment": "CartPol"}, "CartPole-v1"),
        "microbatch_size": ({"microbatch_size": 4}, "microbatch_size"),
        "shard_tables": ({"shard_tables": True}, "shard_tables"),
        "filters": ({"model": {"hidden": [4], "filters": [4]}}, "config.model.filters"),
        "gamma": ({"gamma": 1.5}, "config.gamma"),
    }.values():
        with pytest.raises(ConfigError, match=message):
            jax.eval_shape(_task(**fields).init, jax.random.key(0))
    with pytest.raises(WorkdirError, match="gamma"):
        run(_task(gamma=0.5), straight[0], progress=False)
    policy = hrm_jax.load(straight[0])
    for observation in (np.zeros(3), np.zeros((2, 2, 4)), np.full(4, np.nan)):
        with pytest.raises(ValueError, match="observation: "):
            policy.act(observation)
    with pytest.raises(ValueError, match="seed 1"):
        policy.seed(1)
