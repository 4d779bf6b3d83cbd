"""INFINITO's scheduler: rewards, the environment that trains a language model, and its agent."""

import dataclasses
import json
import pathlib
import time

import forked
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import hrm_jax
from hrm_jax import experiment, tasks
from hrm_jax.data.text.tokenizers import ByteTokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError
from hrm_jax.interop.hugging_face import save_pretrained
from hrm_jax.models import language
from hrm_jax.models.transformer import TransformerConfig
from hrm_jax.rl.environments import step_autoreset
from hrm_jax.tasks.infinito import comparison
from hrm_jax.tasks.infinito.environment import (
    MODES,
    REWARDS,
    LanguageTraining,
    Measured,
    RewardBands,
    reward,
)
from hrm_jax.tasks.infinito.policies import DRAWN, FROZEN, LEARNT, POLICIES, Row
from hrm_jax.tasks.infinito.scheduler import SchedulerTask
from hrm_jax.trained.analysis import Analysis, Evaluation, analyze
from hrm_jax.trained.evaluate import evaluate
from hrm_jax.training.workdir import WorkdirError

ROOT = pathlib.Path(__file__).parents[2]
GPT2 = TransformerConfig(
    hidden_size=32, num_layers=2, num_heads=2, ffn_size=64, max_length=64, positions="learned",
    feed_forward="gelu", tie_head=True, dropout=0.0, init_std=0.2,
)  # fmt: skip
TEXT, PHI, MIXED = range(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scheduler")
    save_pretrained(folder / "base", GPT2, language.init(GPT2, jax.random.key(0)), "bytes")
    lines = [f"El número {i} viene después del {i - 1}; así lo dice el libro." for i in range(90)]
    (folder / "text.txt").write_text("\n".join(lines))
    return folder


def _config(folder, **more):
    data = {
        **{"train": str(folder / "text.txt"), "document": "line", "length": 32},
        **{"eval_rows": 4, "eval_segments": 3, "held_out": 0.4},
    }
    learner = {
        **{"model": str(folder / "base"), "batch_size": 2, "data": data},
        "lora": {"r": 2, "alpha": 8.0, "dropout": 0.0, "target_modules": ["c_attn", "c_proj"]},
        "memory": {"slots": 8, "parts": 2, "threshold": 0.05, "layer": 1, "shared": True},
        "phi": {"dimensions": 4, "projections": 2},
        "meter": {"dimensions": 4, "projections": 2},
        "optimizer": {"name": "adamw", "learning_rate": 0.01, "warmup_steps": 0},
    }
    learner |= more.pop("language", {})
    given = {
        **{"task": "infinito_scheduler", "steps": 4, "batch_size": 4, "tensorboard": False},
        **{"log_every": 1, "eval_every": 2, "checkpoint_every": 2, "rollout_steps": 4},
        **{"minibatches": 2, "epochs": 2, "inner_steps": 2, "max_steps": 3, "eval_episodes": 3},
        **{"model": {"hidden": [8]}, "policies": ["text", "frozen"]},
        "optimizer": {"name": "adamw", "learning_rate": 0.01, "warmup_steps": 0},
    }
    return {**given, **more, "language": learner}


@pytest.fixture(scope="module")
def base():
    params = language.init(GPT2, jax.random.key(0))
    return LanguageModel(GPT2, {"params": params}, ByteTokenizer(), "bytes", "tiny")


@pytest.fixture(scope="module")
def world(folder, base) -> LanguageTraining:
    return SchedulerTask(tasks.parse(_config(folder)), base=base).environment


def _measured(values):
    c, phi, perplexity, memory = np.float32(values)
    zero = jnp.float32(0)
    return Measured(
        *map(jnp.asarray, (phi, c)), zero, zero, *map(jnp.asarray, (perplexity, memory))
    )


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((0.48, 4.3, 85, 0.3), (0.50, 4.5, 80, 0.3), 0.216),
        ((0.45, 4.8, 90, 0.2), (0.47, 5.0, 85, 0.2), 0.236),
        ((0.52, 6.5, 70, 0.4), (0.54, 7.0, 65, 0.4), -0.353),
        ((0.48, 5.2, 12, 0.3), (0.49, 5.3, 5, 0.3), -0.792),
        ((0.45, 4.0, 90, 0.3), (0.46, 6.5, 85, 0.3), -0.244),
        ((0.35, 3.2, 120, 0.2), (0.36, 2.5, 115, 0.2), -0.476),
        ((0.40, 4.2, 180, 0.3), (0.41, 4.3, 250, 0.3), -0.039),
        ((0.48, 4.3, 80, 0.25), (0.50, 4.5, 75, 0.25), 0.226),
    ],
)
def test_reward_by_the_author_s_vectors(before, now, expected):
    found = reward(REWARDS["balance"], RewardBands(), _measured(before), _measured(now))
    assert float(found) == pytest.approx(expected, abs=5e-4)


def test_reward_s_weights_are_presets_or_one_s_own(folder):
    before, now = _measured((0.4, 4.0, 100, 0.5)), _measured((0.5, 5.0, 80, 0.5))
    for name, (c, phi, text, memory) in {
        "balance": (1, 0.5, 0.1, 0.2),
        "text_first": (0.5, 0.3, 0.3, 0.1),
        "phi_first": (0.3, 1.0, 0.1, 0.2),
    }.items():
        expected = 0.1 * c + phi + 0.2 * text - 0.5 * memory + 0.15
        found = reward(REWARDS[name], RewardBands(), before, now)
        assert float(found) == pytest.approx(expected, abs=1e-5)
        assert tasks.parse(_config(folder, reward=name)).rewards == REWARDS[name]
    own = tasks.parse(_config(folder, reward="weights", weights={"phi": 2.0})).rewards
    assert own.phi == 2.0
    assert own.perplexity == 0.1


def test_every_number_of_the_reward_counts():
    """Below, within and above each band, with a jump up."""
    before = _measured((0.5, 2.0, 100, 0.5))
    steps = [_measured(x) for x in ((0.1, 2.0, 5, 0.5), (0.5, 4.0, 90, 0.5), (0.8, 9.0, 300, 0.5))]

    def total(weights, bands):
        return sum(float(reward(weights, bands, before, now)) for now in steps)

    usual = total(REWARDS["balance"], RewardBands())
    for kind in (REWARDS["balance"], RewardBands()):
        for field in dataclasses.fields(kind):
            changed = dataclasses.replace(kind, **{field.name: 1.1 * getattr(kind, field.name)})
            is_weights = kind is REWARDS["balance"]
            given = (changed, RewardBands()) if is_weights else (REWARDS["balance"], changed)
            assert abs(total(*given) - usual) > 1e-4, field.name


def test_the_language_model_is_told_all_of_its_fields(folder, base):
    config = tasks.parse(_config(folder, language={"seed": 3, "phi_low": 0.7, "phi_high": 0.9}))
    task = SchedulerTask(config, base=base)
    given, world = config.language, task.environment
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        assert getattr(task.language.config, field.name) == value
        if hasattr(world, field.name):
            assert getattr(world, field.name) == value
        elif hasattr(world.network, field.name):
            assert getattr(world.network, field.name) == value
    other = task.language.network.init(base.variables["params"], jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, world.start, other)


def test_a_model_that_never_changes_gets_what_the_facts_compute():
    """50 steps in all bands: +7.25 ± 0.08 where the logarithm of the perplexity has noise 0.22."""
    noise = np.random.default_rng(0).normal(0, 0.22, (51, 2000))
    perplexity = jnp.asarray(90 * np.exp(noise), jnp.float32)
    for phi, low, high in ((4.5, 7.17, 7.33), (2.5, -9.2, -7.2), (6.3, -7.8, -5.8)):
        same = jnp.full(perplexity.shape, phi)
        zero = jnp.zeros_like(same)
        found = Measured(same, same / 10, zero, zero, perplexity, zero)
        steps = reward(
            REWARDS["balance"],
            RewardBands(),
            jax.tree.map(lambda x: x[:-1], found),
            jax.tree.map(lambda x: x[1:], found),
        )
        assert low < float(steps.sum(0).mean()) < high


def _episodes(world, action, seeds, steps=12):
    """The last states, and the first, of whole episodes side by side."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    first, _ = jax.vmap(world.reset)(keys)

    @jax.jit
    def go(state):
        def step(state, number):
            of_step = jax.vmap(lambda k: jax.random.fold_in(k, number))(keys)
            state, timestep = jax.vmap(world.step)(state, jnp.full(len(seeds), action), of_step)
            return state, (timestep.reward, state.measured)

        return jax.lax.scan(step, state, jnp.arange(steps))

    last, (rewards, measured) = go(first)
    return first, last, rewards, measured


def test_text_lowers_the_perplexity_more_and_phi_raises_phi_more(folder, base):
    """On held-out text, and of five orders each."""
    config = _config(folder, max_steps=25, inner_steps=4, eval_episodes=5)
    task = SchedulerTask(tasks.parse(config), base=base)
    frozen = task.frozen(jnp.asarray)
    text, phi, start = (task.row(name, frozen) for name in ("text", "phi", FROZEN))
    lost = [np.log(x.finals["perplexity"]) for x in (text, phi, start)]
    assert _high(lost[0]) < _low(lost[1]) < np.mean(lost[2])
    integrated = [x.finals["phi_objective"] for x in (text, phi)]
    assert _low(integrated[1]) > _high(integrated[0])
    mixed = task.row("mixed", frozen)
    assert lost[0].mean() < np.log(mixed.finals["perplexity"]).mean()
    assert integrated[0].mean() < mixed.finals["phi_objective"].mean()


def _low(values):
    return comparison.interval(values)[0]


def _high(values):
    return comparison.interval(values)[1]


def test_actions_change_the_weights_and_nothing_does_where_frozen(world):
    found = {action: _episodes(world, action, [1, 2], steps=2) for action in range(len(MODES))}
    trained = [jax.tree.leaves(last.trained) for _, last, _, _ in found.values()]
    for one, other in ((TEXT, PHI), (PHI, MIXED), (TEXT, MIXED)):
        assert any(np.any(x != y) for x, y in zip(trained[one], trained[other], strict=True))
    still = dataclasses.replace(world, learns=False)
    first, last, _, _ = _episodes(still, PHI, [1, 2], steps=2)
    jax.tree.map(np.testing.assert_array_equal, first.trained, last.trained)
    jax.tree.map(np.testing.assert_array_equal, first.opt_state, last.opt_state)
    assert np.any(first.places != last.places)


def test_a_frozen_model_in_all_bands_gets_their_bonuses(world):
    """What is left beside them is told by its first and last measurement alone, but for noise."""
    bands = RewardBands(
        phi_low=0.01, phi_high=10.0, perplexity_low=1.0, perplexity_high=1e5, jump=10.0,
        consciousness_low=0.001, consciousness_high=1.0,
    )  # fmt: skip
    memory = dataclasses.replace(world.network.memory, slots=0)
    still = dataclasses.replace(
        world,
        learns=False,
        bands=bands,
        network=dataclasses.replace(world.network, memory=memory),
        start={k: v for k, v in world.start.items() if k != "recall"},
    )
    still = dataclasses.replace(still, first=still.measured_at_start())
    first, last, rewards, measured = _episodes(still, TEXT, [3, 4, 5], steps=20)
    moved = last.measured.phi - first.measured.phi
    before = np.concatenate([first.measured.perplexity[None], measured.perplexity[:-1]])
    text = ((before - measured.perplexity) / before).sum(0)
    expected = 20 * 0.15 + 0.6 * moved + 0.1 * text
    np.testing.assert_allclose(rewards.sum(0), expected, atol=1e-4)


def test_episodes_end_by_their_limit_and_begin_with_the_same_weights(world):
    """A reset brings the snapshot back, with the text in another order; one key, one order."""
    state, first = world.reset(jax.random.key(0))
    assert state.places.shape == (2,)
    again, _ = world.reset(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state, again)
    other, _ = world.reset(jax.random.key(1))
    assert np.any(other.places != state.places)
    step = jax.jit(lambda *x: step_autoreset(world, *x))
    for number in range(3):
        assert world.observation_space.contains(first)
        state, timestep, first = step(state, jnp.int32(PHI), jax.random.key(number))
        assert not timestep.terminated
        assert bool(timestep.truncated) == (number == 2)
    jax.tree.map(np.testing.assert_array_equal, state.trained, world.start)
    assert int(state.steps) == 0
    assert float(state.memory.use.mean()) == 0
    assert np.any(first != timestep.observation)


def test_environments_side_by_side_are_as_alone(world):
    _, side, rewards, _ = _episodes(world, MIXED, [7, 8], steps=2)
    _, alone, reward_alone, _ = _episodes(world, MIXED, [8], steps=2)
    np.testing.assert_allclose(rewards[:, 1], reward_alone[:, 0], rtol=5e-3)
    start = np.concatenate([np.ravel(x) for x in jax.tree.leaves(world.start)])
    moved = [
        np.concatenate([np.ravel(x[place]) for x in jax.tree.leaves(found.trained)]) - start
        for found, place in ((side, 1), (alone, 0), (side, 0))
    ]
    alike = [np.corrcoef(moved[0], x)[0, 1] for x in moved[1:]]
    assert alike[0] > 0.98, alike  # of what is 0 but for rounding, Adam makes whole steps
    assert alike[1] < 0.9, alike


def test_the_memory_fills_and_the_text_goes_on(world):
    first, last, _, measured = _episodes(world, PHI, [1], steps=3)
    assert np.all(np.asarray(last.places) != np.asarray(first.places))
    moved = (last.places - first.places) % len(world.tokens)
    assert np.all(moved == 3 * world.inner_steps * world.network.length)
    assert 0 < float(measured.memory_use[-1, 0]) <= 1


# The agent


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    result = experiment.train(_config(folder), workdir, progress=False)
    told = experiment.report(result, workdir)
    return workdir, result, told


@pytest.mark.slow
def test_kill_9_and_it_goes_on_exactly(folder, run, tmp_path, child):
    """Policy, language models, their optimizers, memories and places."""
    _, straight, _ = run
    (tmp_path / "config.py").write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({_config(folder)!r})\n"
    )
    flags = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}"]
    environment = child(jax.device_count(), killed=True)
    script = forked.Script([ROOT / "launch" / "train.py", *flags], environment=environment)
    try:
        while not (tmp_path / "run" / "checkpoints" / "2").exists():
            assert script.process.is_alive(), script.said()
            time.sleep(0.02)
    finally:
        script.process.kill()
        script.wait()
    assert not (tmp_path / "run" / "checkpoints" / "4").exists()
    resumed = experiment.train(_config(folder), tmp_path / "run", progress=False)
    parts = ("params", "opt_state", "carry")
    for name in parts:
        given = (getattr(x.state, name) for x in (straight, resumed))
        jax.tree.map(np.testing.assert_array_equal, *given)
    carried = straight.state.carry.running.state
    assert carried.places.shape == (4, 2)
    assert any(np.any(x) for x in jax.tree.leaves(carried.opt_state))


def test_its_file_tells_of_all_policies(run):
    workdir, result, told = run
    found = json.loads((workdir / "scheduler.json").read_text())
    assert found["orders"] == 3
    assert [x["name"] for x in found["policies"]] == [LEARNT, DRAWN, "text", "frozen"]
    for one in found["policies"]:
        assert one["reward"] == "balance"
        assert one["interval"][0] <= one["mean"] <= one["interval"][1]
        assert len(one["returns"]) == 3
        assert one["name"] in told
    for own, how in zip(found["policies"], ("", "_drawn"), strict=False):
        figures = {k: result.figures[f"eval/{k}{how}"] for k in ("return", "perplexity")}
        assert own["mean"] == pytest.approx(figures["return"], abs=1e-5)
        assert own["perplexity"] == pytest.approx(figures["perplexity"], rel=1e-5)
        assert own["phi_meter"] == pytest.approx(result.figures[f"eval/phi_meter{how}"], rel=1e-4)
        assert sum(own["actions"].values()) == pytest.approx(1)
    assert found["policies"][3]["actions"] is None
    assert "learnt is " in told


def test_actions_are_the_likeliest_or_drawn(run):
    """A fresh policy knows no better, and draws each with about the same probability."""
    task = run[1].task
    weights = task.weights(task.init(jax.random.key(0)))
    frozen = task.frozen(jnp.asarray)
    drawn = task.row(DRAWN, frozen, weights, number=24).actions
    assert np.bincount(drawn.ravel(), minlength=3).min() > 12  # of 72
    likeliest = task.row(LEARNT, frozen, weights, number=24)
    expected = task.act(weights, jnp.asarray(likeliest.seen.reshape(-1, 6)))
    np.testing.assert_array_equal(likeliest.actions.ravel(), expected)
    np.testing.assert_array_equal(task.row(DRAWN, frozen, weights, number=24).actions, drawn)
    assert (drawn != likeliest.actions).mean() > 0.3


def test_it_is_loaded_and_evaluated(run):
    workdir, result, _ = run
    figures = evaluate(workdir)
    assert figures["eval/return"] == pytest.approx(result.figures["eval/return"], rel=5e-3)
    assert evaluate(workdir, limit=2, seed=5)["eval/return"] != figures["eval/return"]
    with pytest.raises(ValueError, match="max_steps"):
        evaluate(workdir, max_steps=2)
    policy = hrm_jax.load(workdir)
    moments = list(policy.watch(seed=0))
    assert len(moments) == 4
    assert moments[-1].ended
    assert "perplexity" in policy.environment.text(moments[0].state)


def test_another_run_s_policy_goes_on(folder, run, tmp_path):
    workdir, result, _ = run
    config = _config(folder, steps=1, eval_every=1, checkpoint_every=1, init_from=str(workdir))
    config["optimizer"] = {**config["optimizer"], "learning_rate": 1e-12}
    found = experiment.train(config, tmp_path / "on", progress=False)
    for x, y in zip(*(jax.tree.leaves(x.state.params) for x in (found, result)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"weights": {"phi": 2.0}}, "weights.phi: 2.0 has no effect: reward is 'balance'"),
        ({"reward": "fast"}, "reward: expected one of"),
        ({"seeds": 2}, "seeds: 2 has no effect"),
        ({"environment": "CartPole-v1"}, "environment: 'CartPole-v1' has no effect"),
        ({"policies": ["best"]}, "policies: 'best', expected some of text"),
        ({"bands": {"phi_low": 7.0}}, "bands.phi_low: 7.0 is more than phi_high 6.0"),
        ({"max_steps": 0}, "max_steps: expected at least 1"),
        ({"language": {"data": {"kind": "introductions"}}}, "language.data.kind"),
        ({"language": {"optimizer": {"ema": 0.9}}}, "language.optimizer.ema"),
        ({"language": {"phi": {"kind": "nets"}}}, "config.language.phi_low: 1.6, but phi.kind"),
    ],
)
def test_what_is_refused(folder, more, message):
    with pytest.raises(ConfigError, match=message):
        tasks.parse(_config(folder, **more))


def test_a_policy_of_another_environment_is_refused(folder, tmp_path):
    """Acrobot has six observations and three actions too."""
    small = {
        **{"task": "ppo", "environment": "Acrobot-v1", "steps": 1, "batch_size": 2},
        **{"rollout_steps": 4, "minibatches": 2, "eval_episodes": 2, "eval_max_steps": 4},
        **{"model": {"hidden": [8]}, "tensorboard": False},
    }
    experiment.train(small, tmp_path / "acrobot", progress=False)
    with pytest.raises(ConfigError, match=r"init_from: .*a run of 'ppo' in Acrobot-v1"):
        experiment.train(
            _config(folder, init_from=str(tmp_path / "acrobot")), tmp_path / "new", progress=False
        )
    with pytest.raises(WorkdirError, match="a run of 'ppo', expected one of a scheduler"):
        analyze(tmp_path / "acrobot")


# What is told


def _entry(name, low, high):
    return {"name": name, "mean": (low + high) / 2, "interval": [low, high]}


def test_verdicts():
    entries = [_entry(LEARNT, 2, 3), _entry("a", 0, 1), _entry("b", 2.5, 4), _entry("c", 4, 5)]
    assert comparison.verdict(entries) == [
        "learnt is better than a; worse than c; not apart from b."
    ]
    assert comparison.verdict(entries[:1]) == []
    low, high = comparison.interval([1.0, 2.0, 3.0])
    expected = scipy.stats.ttest_1samp([1.0, 2.0, 3.0], 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_policies_that_nobody_learns():
    bands = RewardBands()
    seen = jnp.zeros((4, 6)).at[:, 1].set(jnp.array([0.29, 0.34, 0.44, 0.46]))
    keys = jax.random.split(jax.random.key(0), 4)
    done = {
        name: np.asarray(act(seen, bands, jnp.int32(4), keys)) for name, act in POLICIES.items()
    }
    assert done["band_sixth"].tolist() == [PHI, PHI, TEXT, TEXT]
    assert done["band_half"].tolist() == [PHI, PHI, PHI, TEXT]
    assert done["round_robin"].tolist() == [PHI] * 4
    for name, action in (("text", TEXT), ("phi", PHI), ("mixed", MIXED)):
        assert done[name].tolist() == [action] * 4
    many = POLICIES["random"](
        jnp.zeros((3000, 6)), bands, jnp.int32(0), jax.random.split(jax.random.key(1), 3000)
    )
    np.testing.assert_allclose(np.bincount(many) / 3000, 1 / 3, atol=0.04)


def test_analysis_of_evaluations(tmp_path):
    returns = {1: [0.0, 1.0], 2: [4.0, 6.0], 3: [9.0, 9.5], 4: [1.0, 3.0]}
    found = Analysis(tuple(Evaluation(k, np.array(v)) for k, v in returns.items()))
    lines = found.lines()
    assert lines[2].split() == ["2", "5.000", "1.000", "4.000", "6.000", "+4.500"]
    text = "\n".join(lines)
    assert "Best: 9.250, at step 3." in text
    assert "It is not the last" in text
    assert "Orders differ least at step 3 (0.250), most at step 2 (1.000)." in text
    assert "First half of the evaluations 2.750, second half 5.625 (+2.875)." in text
    assert "3.342, high" in text
    found.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_analysis_of_actions():
    phi = np.stack([np.linspace(2.29, 6.29, 11)] * 2, axis=1).astype(np.float32)
    zeros = np.zeros_like(phi)
    measured = Measured(phi, phi / 10, zeros, zeros, zeros, zeros)
    actions = np.where(phi[:-1] < 4.29, PHI, TEXT)
    seen = np.zeros((10, 2, 6), np.float32)
    seen[..., 2] = phi[:-1] / 10  # loss_text
    row = Row(LEARNT, actions, measured, seen, {})
    lines = Analysis((Evaluation(1, np.zeros(2)),), row).lines()
    assert "One evaluation: nothing can be said of a trend." in lines
    assert any(x.split() == ["step", "0", "to", "1", "0%", "100%", "0%", "4"] for x in lines)
    assert any(x.split() == ["step", "8", "to", "9", "100%", "0%", "0%", "4"] for x in lines)
    for name in ("step", "Φ", "loss_text"):
        shown = [x.split() for x in lines if x.split()[:1] == [name] and "%" in x]
        assert sum(int(x[-1]) for x in shown) == 20, name  # each step in one of the lines
        assert sum("100%" in x for x in shown) == 4
    assert not any("memory_use" in x for x in lines)  # it does not vary


def test_analysis_of_a_run(run):
    workdir, _, _ = run
    found = analyze(workdir, orders=2)
    assert [x.step for x in found.evaluations] == [2, 4]
    assert found.row.actions.shape == (3, 2)
    assert (workdir / "plots" / "analysis.png").exists()
    assert analyze(workdir, orders=0).row is None
    with pytest.raises(ValueError, match="orders"):
        analyze(workdir, orders=-1)
