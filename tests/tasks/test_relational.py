"""The task of answering questions: it learns, counts what it should, and can be used afterwards."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import hrm_jax
from hrm_jax import experiment, tasks
from hrm_jax.data.errors import DataError
from hrm_jax.data.questions import family, sort_of_clevr
from hrm_jax.fields import ConfigError
from hrm_jax.tasks.relational.evaluation import most_common, shares
from hrm_jax.trained.evaluate import evaluate

SIZES = {"relation_dim": 32, "hidden_dim": 32, "g_layers": 2, "f_layers": 1}
FAST = {"name": "muon", "learning_rate": 0.02, "warmup_steps": 5, "weight_decay": 0.0}


def _config(task="sort_of_clevr", **more):
    return {
        **{"task": task, "steps": 200, "batch_size": 8, "tensorboard": False},
        **{"log_every": 20, "eval_every": 200, "checkpoint_every": 200},
        **{"data": {"num_test": 30}, "model": SIZES, "optimizer": FAST, **more},
    }


def _task(task="sort_of_clevr", **more):
    return tasks.build(tasks.parse(_config(task, **more)))


@pytest.fixture(scope="module")
def run(start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("relational") / "run"
    return start(_config(), workdir), workdir


def test_it_learns(run):
    figures = run[0].figures
    answers = run[0].task.test.answers()
    questions = sort_of_clevr.questions()
    guess = shares(most_common(answers, questions), answers, questions)
    assert figures.keys() == guess.keys()
    assert figures["eval/accuracy"] > guess["eval/accuracy"] + 0.08
    assert figures["eval/relational_accuracy"] > guess["eval/relational_accuracy"] + 0.05
    assert figures["eval/non_relational_accuracy"] > guess["eval/non_relational_accuracy"] + 0.05
    assert figures["eval/questions"] == 30 * 36


def test_a_run_can_be_asked_and_evaluated(run):
    result, workdir = run
    model = hrm_jax.load(workdir)
    scenes = result.task.test
    texts = sort_of_clevr.questions().texts
    told = model(scenes.states(), texts)
    right = [[model.questions.answers[k] for k in row] for row in scenes.answers()]
    share = np.mean(np.array(told) == np.array(right))
    assert share == pytest.approx(result.figures["eval/accuracy"])
    assert model(scenes.states()[:3], texts[20]) == [row[20] for row in told[:3]]
    assert model.logits(scenes.states()[:2], [3, 4]).shape == (2, 2, 10)
    figures = evaluate(workdir)
    assert figures == pytest.approx(result.figures)
    few = evaluate(workdir, limit=7)
    assert few["eval/questions"] == 7 * 36
    assert few["eval/accuracy"] == pytest.approx(np.mean(np.array(told[:7]) == np.array(right[:7])))
    with pytest.raises(ValueError, match=r"inputs: expected the shape \[W, 6, 10\].*\[6, 10\]"):
        model(scenes.states()[0], texts[0])
    with pytest.raises(ValueError, match=r"unknown question 'Who\?'; did you mean"):
        model(scenes.states(), "Who?")
    with pytest.raises(DataError, match=r"mine.csv: a run on questions draws its worlds"):
        evaluate(workdir, "mine.csv")


def test_the_report_says_how_much_is_guessing(run):
    result, workdir = run
    text = experiment.report(result, workdir)
    share = result.figures["eval/relational_accuracy"]
    assert f"about several objects     {share:.2%}" in text
    answers, questions = result.task.test.answers(), sort_of_clevr.questions()
    guess = shares(most_common(answers, questions), answers, questions)
    assert f"{share:.2%}  ({guess['eval/relational_accuracy']:.1%})" in text
    assert (workdir / "plots" / "contact_sheet.png").stat().st_size > 10_000
    identity = json.loads((workdir / "identity.json").read_text())
    assert identity["builder"] == "sort_of_clevr"
    assert identity["counts"] == {"held_out_worlds": 30, "questions": 36}


def test_what_is_counted():
    questions = family.questions()
    answers = np.full((2, 48), -1)
    answers[0, :3], answers[1, 46] = (4, 5, 6), 7
    found = np.zeros((2, 48), int)
    found[0, :2], found[1, 46] = (4, 5), 7
    figures = shares(found, answers, questions)
    assert figures["eval/questions"] == 4
    assert figures["eval/accuracy"] == 3 / 4
    assert figures["eval/non_relational_accuracy"] == figures["eval/mother_accuracy"] == 2 / 3
    assert figures["eval/relational_accuracy"] == figures["eval/father_of_father_accuracy"] == 1
    assert (most_common(answers, questions)[:, 40:] == 7).all()


def test_questions_without_an_answer_cost_nothing():
    task = _task("family", batch_size=4)
    state = task.init(jax.random.key(0))
    batch = next(task.batches())
    assert (batch["answers"] < 0).any()
    step = jax.jit(task.step)
    _, metrics = step(state, batch)
    assert float(metrics["loss"][1]) == (batch["answers"] >= 0).sum()
    moved = {**batch, "questions": np.where(batch["answers"] < 0, 0, batch["questions"])}
    assert np.allclose(step(state, moved)[1]["loss"], metrics["loss"])


def test_microbatches_give_the_same_step():
    whole, parts = _task(), _task(microbatch_size=2)
    state, batch = whole.init(jax.random.key(0)), next(whole.batches())
    one, two = (jax.jit(task.step)(state, batch)[0].params for task in (whole, parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one, two)


def test_pixels_and_families_are_tasks_too():
    pixels = _task(
        data={"shown": "pixels", "num_test": 2, "num_train": 16},
        model={**SIZES, "channels": (4, 4, 4, 4)},
        asked=2,
    )
    control = _task("family", model={**SIZES, "name": "mlp"}, data={"num_test": 2}, asked=16)
    for task in (pixels, control):
        state, batch = task.init(jax.random.key(0)), next(task.batches())
        state, metrics = jax.jit(task.step)(state, batch)
        assert np.isfinite(float(metrics["loss"][0]))
        assert 0 <= task.evaluate(state)["eval/accuracy"] < 0.6
    assert pixels.identity.counts["training_worlds"] == 16
    assert pixels.identity.sha256.keys() == {"train", "test"}
    assert (
        _task(data={"num_test": 2}).identity.differences(_task(data={"num_test": 3}).identity)
    )  # fmt: skip


def test_a_run_starts_from_another(run):
    _, workdir = run
    config = _config(init_from=str(workdir), steps=1, model={**SIZES, "hidden_dim": 16})
    sizes = tasks.parse(_config()).model
    started = tasks.kind(tasks.parse(config)).with_sizes(tasks.parse(config), sizes)
    assert started.model.hidden_dim == 32
    config = tasks.parse(_config(init_from="x", model={**SIZES, "name": "mlp"}))
    with pytest.raises(ConfigError, match=r"config.init_from: .*not the weights of .*'mlp'"):
        tasks.kind(config).with_sizes(config, sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asked": 37}, r"config\.asked: expected 0 to 36, got 37"),
        ({"data": {"num_test": 0}}, r"data\.num_test: expected at least 1"),
        ({"data": {"shown": "pixels"}}, r"model\.channels: \(\), but the data have images"),
        ({"model": {"channels": [8]}}, r"model\.channels: \(8,\), but the data have objects"),
        ({"model": {"question_dim": 3}}, r"model\.question_dim is 3, but the data have 11"),
        ({"model": {"mlp_layers": 3}}, r"model\.mlp_layers: 3, but 'relational' has no such"),
        (
            {"model": {"name": "mlp", "pairs": "all"}},
            r"config\.model\.pairs: 'all' has no effect: an MLP has no pairs",
        ),
        (
            {"data": {"shown": "pixels", "shuffled": False}, "model": {"channels": [8]}},
            r"config\.data\.shuffled: False has no effect: pixels have no order",
        ),
    ],
)
def test_bad_configs_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        _task(**change)


def test_the_control_takes_a_presets_sizes():
    presets = {"states": {"model": {"aggregate": "sum", "hidden_dim": 48}}}
    config = tasks.preset_config("sort_of_clevr", presets, "states")
    config.model.name = "mlp"
    parsed = tasks.parse(config.to_dict())
    assert (parsed.model.variant, parsed.model.hidden_dim) == ("mlp", 48)
    assert dataclasses.replace(parsed, steps=3).steps == 3
