"""ARC as a task: its data, the translation, the votes, and what is measured."""

import functools
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.fields import ConfigError, to_mapping
from hrm_jax.models.act import Solved
from hrm_jax.models.trm import TRMConfig
from hrm_jax.puzzles.arc.puzzle import ARC
from hrm_jax.puzzles.arc.questions import Questions
from hrm_jax.puzzles.arc.synthetic import generate_tasks
from hrm_jax.puzzles.arc.tokens import decode, encode
from hrm_jax.tasks.base import State, Task
from hrm_jax.tasks.puzzles import evaluation
from hrm_jax.tasks.puzzles import model as puzzle_model
from hrm_jax.tasks.puzzles.losses import IGNORED
from hrm_jax.tasks.puzzles.model import PuzzleModel
from hrm_jax.training.workdir import WorkdirError

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "arc.py"
DATA = {"num_train": 6, "num_test": 3, "num_aug": 2, "side": 4, "families": "recolour, mirror"}
SHOWN = 3 * 3  # test inputs in all their augmentations


@pytest.fixture(scope="module")
def config(tiny):
    """Makes the configuration of a tiny run."""
    return lambda **changes: tiny(task="arc", **{"data": DATA, "steps": 2, **changes})


@pytest.fixture(scope="module")
def task(config):
    return tasks.build(tasks.parse(config()))


@pytest.fixture(scope="module")
def state():
    """For tests whose answers come from no model."""
    return State(step=jnp.int32(0), params={}, opt_state=(), key=jax.random.key(0))


def _preset(preset, model="hrm"):
    config = tasks.file_config(CONFIG, preset)
    config.model.name = model
    return config.to_dict()


@pytest.fixture
def answering(state, monkeypatch):
    """Evaluates a task whose model gives the answers (and q_halt) made of its test set."""

    def evaluate(task, answers, q_halt=None):
        test = task.evaluated

        def solve(config, variables, inputs, identifiers, *, max_steps, **_):
            predictions = answers(test)
            trace = np.repeat(predictions[:, None], max_steps, axis=1)
            values = np.zeros(len(inputs)) if q_halt is None else q_halt
            return Solved(predictions, np.ones(len(inputs), int), values, trace, 1, seconds=1.0)

        monkeypatch.setattr(evaluation, "solve_puzzles", solve)
        return task.evaluate(state)

    return evaluate


@pytest.mark.parametrize("preset", ["laptop", "small", "paper"])
def test_presets_are_complete(preset):
    config = tasks.parse(_preset(preset))
    assert tasks.parse(json.loads(json.dumps(to_mapping(config)))) == config
    assert config.best_metric == "eval/pass_at_2"
    trm = tasks.parse(_preset(preset, "trm"))
    assert isinstance(trm.model, TRMConfig)
    assert trm.model.hidden_size == config.model.hidden_size


def test_trm_trains_and_evaluates(config):
    made = config(eval_aug=1)
    made["model"] = {"name": "trm", **made["model"]}
    del made["model"]["H_layers"]
    task = tasks.build(tasks.parse(made))
    assert isinstance(task, Task)
    assert task.config.model.seq_len == 25
    assert task.config.model.num_puzzle_identifiers == 1 + 9 * 3
    state, batches = task.init(jax.random.key(0)), task.batches()
    table = np.asarray(state.tables["puzzle_emb"])
    step = jax.jit(task.step)
    for _ in range(2):
        state, metrics = step(state, next(batches))
        assert np.isfinite(metrics["loss"]).all()
    moved = np.flatnonzero((np.asarray(state.tables["puzzle_emb"]) != table).any(1))
    assert 0 < len(moved) < len(table)
    _check(task.evaluate(state))


def _check(figures):
    assert figures["eval/puzzles"] == 3 * 2
    for name in ("pass_at_1", "pass_at_2", "cell_accuracy", "exact_accuracy"):
        assert 0 <= figures[f"eval/{name}"] <= 1
    assert "eval/pass_at_10" not in figures  # there are two votes


def test_right_answers_get_full_marks(task, answering):
    figures = answering(task, lambda test: test.labels)
    for name in ("pass_at_1", "pass_at_2", "cell_accuracy", "exact_accuracy", "accuracy"):
        assert figures[f"eval/{name}"] == 1
    assert figures["eval/exact_accuracy_by_step"] == [1, 1, 1]
    assert figures["eval/copy_pass_at_1"] == figures["eval/colour_pass_at_1"] == 0
    assert 0.2 < figures["eval/copy_cell_accuracy"] < 1
    assert 0.2 < figures["eval/colour_cell_accuracy"] < 1


def test_copied_inputs_score_what_the_baseline_says(task, answering):
    figures = answering(task, lambda test: test.inputs)
    assert figures["eval/pass_at_2"] == 0
    assert figures["eval/cell_accuracy"] == figures["eval/copy_cell_accuracy"]
    assert figures["eval/exact_accuracy"] == 0


def test_one_right_answer_of_three_is_found_at_the_second_try(task, answering):
    def answers(test):
        plain = (test.questions.augmentation == 0)[:, None]
        return np.where(plain, test.labels, test.inputs)

    figures = answering(task, answers)
    assert (figures["eval/pass_at_1"], figures["eval/pass_at_2"]) == (0, 1)
    assert figures["eval/exact_accuracy"] == pytest.approx(1 / 3)

    def three(test):  # all different: the surest is first
        rows = [test.labels, test.inputs, np.full_like(test.inputs, 5)]
        return np.choose(test.questions.augmentation[:, None], rows)

    for sure, first in ((0, 1), (1, 0)):
        q_halt = np.where(task.test.questions.augmentation == sure, 1.0, 0.0)
        assert answering(task, three, q_halt)["eval/pass_at_1"] == first


def test_examples_are_moved_as_pairs(task):
    train = task.train
    keys = jax.random.split(jax.random.key(1), len(train))
    augment = functools.partial(task.puzzle.augment, task.config.data)
    inputs, labels = jax.vmap(augment)(keys, train.inputs, train.labels)
    places = set()
    for before, after, answer, target in zip(
        train.inputs, np.asarray(inputs), train.labels, np.asarray(labels), strict=True
    ):
        question, answer = decode(before), decode(answer)
        lowest = [5 - max(sides) for sides in zip(question.shape, answer.shape, strict=True)]
        fits = [
            (row, column)
            for row in range(lowest[0] + 1)
            for column in range(lowest[1] + 1)
            if (encode(question, 5, row, column) == after).all()
            and (encode(answer, 5, row, column) == target).all()
        ]
        assert len(fits) == 1
        places.add(fits[0])
    assert len(places) > 3


@pytest.mark.parametrize("augment", [False, True])
def test_a_step_moves_its_examples_where_asked(augment, config, state):
    task = tasks.build(tasks.parse(config(data={**DATA, "augment": augment}, batch_size=32)))
    task._trainer = types.SimpleNamespace(step=lambda state, batch, key: (state, batch))
    batch = jax.tree.map(jnp.asarray, next(task.batches()))
    _, taken = task.step(state, batch)
    assert (np.asarray(taken["inputs"]) == batch["inputs"]).all() == (not augment)
    for name, empty in (("inputs", 0), ("labels", IGNORED)):  # none of the grids is cut off
        np.testing.assert_array_equal((taken[name] > 1).sum(1), (batch[name] > 1).sum(1))
        assert ((taken[name] == empty).sum(1) > 0).any()


def test_fewer_augmentations_are_evaluated(config, answering):
    task = tasks.build(tasks.parse(config(eval_aug=1)))
    some = task.evaluated
    assert (len(task.test), len(some)) == (SHOWN, 6)
    some.validate("some")
    names = ARC.load(task.config.data).test.questions  # those of all, made anew
    rows = np.flatnonzero(names.augmentation < 2)
    np.testing.assert_array_equal(some.inputs, task.test.inputs[rows])
    np.testing.assert_array_equal(some.example_identifiers(), task.test.example_identifiers()[rows])
    for field in ("item", "augmentation"):
        np.testing.assert_array_equal(
            getattr(some.questions, field), getattr(names, field)[rows], field
        )
    assert answering(task, lambda test: test.labels)["eval/pass_at_1"] == 1
    assert len(tasks.build(tasks.parse(config(eval_aug=0))).evaluated) == 3
    assert len(tasks.build(tasks.parse(config(eval_aug=9))).evaluated) == SHOWN


def test_a_part_of_the_answers_is_scored_by_itself(task):
    """Of --limit: four examples are all of the first test input and one of the second."""
    test = task.test
    q_halt = np.zeros(4)
    figures = ARC.tally(test, [(test.labels[:4], q_halt)])
    assert figures["pass_at_1"] == 1
    assert not any("copy" in name or "colour" in name for name in figures)
    wrong = np.concatenate([test.inputs[:3], test.labels[3:4]])
    assert ARC.tally(test, [(wrong, q_halt)])["pass_at_1"] == 0.5


@pytest.fixture
def files(tmp_path):
    """Folders of training and evaluation tasks, the answers to the latter unknown."""
    made = generate_tasks(8, 0, side=4)
    for number, task in enumerate(made):
        known = number < 6
        pairs = {
            "train": [{"input": x.tolist(), "output": y.tolist()} for x, y in task.train],
            "test": [
                {"input": x.tolist(), **({"output": y.tolist()} if known else {})}
                for x, y in task.test
            ],
        }
        path = tmp_path / ("training" if known else "evaluation") / f"{task.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(pairs))
    return {"training": str(tmp_path / "training"), "evaluation": str(tmp_path / "evaluation")}


def test_unknown_answers_are_not_scored(config, files, answering):
    data = {**files, "num_aug": 1, "canvas": 5}
    with pytest.raises(ConfigError, match=r"config\.best_metric: no answers .* are known"):
        tasks.build(tasks.parse(config(data=data)))
    task = tasks.build(tasks.parse(config(data=data, best_metric="")))
    figures = answering(task, lambda test: test.inputs)
    assert set(figures) == {"eval/steps", "eval/puzzles", "eval/puzzles_per_second"}
    assert figures["eval/puzzles"] == 4


def test_a_run_goes_on_with_the_data_it_was_begun_with(config, start, tmp_path):
    run = start(config(eval_aug=1), tmp_path / "run")
    _check(run.figures)
    identity = run.task.identity
    built = tmp_path / "run" / "data"
    files = {path: path.stat().st_mtime_ns for path in built.rglob("*.npy")}
    again = start(config(eval_aug=1), tmp_path / "run")
    assert (again.step, again.task.identity) == (2, identity)
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*.npy")} == files
    assert ARC.read_both(built)[1].identifiers[1] == "recolour-00000"
    with pytest.raises(WorkdirError, match=r"config\.data\.num_aug: 2 in the workdir, 1 now"):
        start(config(eval_aug=1, data={**DATA, "num_aug": 1}), tmp_path / "run")
    other = tasks.build(tasks.parse(config(data={"path": str(built)})))
    assert other.identity.sha256 == identity.sha256


def test_fields_of_the_data(files):
    for data, message in (
        ({"path": "x", "evaluation": "y"}, r"data\.path and data\.training/evaluation"),
        ({"test_aug": -2}, r"data\.test_aug: expected -1 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            tasks.parse({"task": "arc", "data": data})
    with pytest.raises(ConfigError, match=r"config\.eval_aug: expected at least -1"):
        tasks.parse({"task": "arc", "eval_aug": -2})
    for data, message in (
        ({"families": "keeps"}, r"\['keeps'\] unknown"),
        ({"training": files["training"]}, "give both or neither"),
        ({"path": "nowhere"}, "nowhere"),
    ):
        with pytest.raises(DataError, match=message):
            tasks.build(tasks.parse({"task": "arc", "data": data}))


def test_a_grid_is_solved_as_text(task, state, monkeypatch):
    test = task.test
    model = PuzzleModel(task.config.model, task.weights(state))
    assert model.puzzle is ARC
    solved = Solved(test.labels, np.full(SHOWN, 2), np.zeros(SHOWN), test.labels[:, None], 1)
    monkeypatch.setattr(puzzle_model, "solve_puzzles", lambda *_, **__: solved)
    solutions = model.solve(test.inputs, puzzle_identifiers=test.example_identifiers(), trace=True)
    for solution, label in zip(solutions, test.labels, strict=True):
        assert solution.text.splitlines() == ["".join(map(str, row)) for row in decode(label)]
        assert (solution.trace_text, solution.valid) == ((solution.text,), None)


def test_the_subset_is_what_the_split_alone_tells(task, tmp_path):
    """`ArcTest.first` agrees with reading the questions off the smaller split."""
    some = task.test.first(1)
    task_names = [q.task for q in some.questions.items]
    names = ["<blank>"] * task.config.model.num_puzzle_identifiers
    for identifier, row in zip(
        some.puzzle_identifiers, some.puzzle_indices[:-1].tolist(), strict=True
    ):
        name = task_names[some.questions.item[row]]
        (names[identifier],) = some.questions.symmetry.take(slice(row, row + 1)).names(name)
    again = Questions.of(some, names)
    assert [q.task for q in again.items] == task_names
    np.testing.assert_array_equal(again.item, some.questions.item)
    np.testing.assert_array_equal(again.augmentation, some.questions.augmentation)


def test_a_preset_that_draws_tasks_takes_files_instead(data, tmp_path):
    """What it says of drawn tasks is in vain then, also where the run's folder keeps the data."""
    values = _preset("laptop")
    folder = data / "reported" / "arc_combined"
    values["data"] |= {
        "training": f"{folder}:training2+concept",
        "evaluation": f"{folder}:evaluation2",
        "num_aug": 1,
    }
    task = tasks.build(tasks.parse(values), tmp_path / "data")
    assert task.train.metadata.num_puzzle_identifiers > 1
    assert (tmp_path / "data" / "identity.json").is_file()
