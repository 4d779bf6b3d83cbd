"""The Sudoku task: its data, its figures, and that it learns."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.data.puzzle_set import PuzzleSet
from hrm_jax.fields import ConfigError
from hrm_jax.models import recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.puzzles.digits.board import is_solution
from hrm_jax.puzzles.sudoku.board import SudokuShape, from_tokens
from hrm_jax.puzzles.sudoku.puzzle import SUDOKU, SudokuData
from hrm_jax.tasks.base import Task
from hrm_jax.tasks.puzzles.evaluation import evaluate_puzzles, solve_puzzles
from hrm_jax.tasks.puzzles.losses import IGNORED
from hrm_jax.tasks.puzzles.task import PuzzleTask
from hrm_jax.tasks.supervised import over_microbatches

FOUR = SudokuShape.of(4)


def _build(config, cache=None):
    return tasks.build(tasks.parse(config), cache)


# --- data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["npy", "tfds", "csv"])
def test_the_same_puzzles_from_every_format(file_format, tiny, tmp_path):
    folder = tmp_path / "data"
    SUDOKU.build(folder, SudokuData(size=4, num_train=16, num_test=8), file_format)
    if file_format == "csv":
        paths = {f"{x}_csv": str(folder / f"{x}.csv") for x in ("train", "test")}
    else:
        paths = {"path": str(folder)}
    task = _build(tiny(data=paths))
    generated = _build(tiny())
    assert isinstance(task, Task)
    assert task.identity.sha256 == generated.identity.sha256
    np.testing.assert_array_equal(task.train.inputs, generated.train.inputs)
    assert task.config.model.seq_len == 16
    assert task.config.model.vocab_size == 6


def test_generated_puzzles_are_kept(tiny, tmp_path):
    first = _build(tiny(), tmp_path)
    assert json.loads((tmp_path / "test" / "dataset.json").read_text())["seq_len"] == 16
    again = _build(tiny(), tmp_path)
    assert first.identity == again.identity


@pytest.mark.parametrize(
    ("field", "value"), [("seq_len", 17), ("vocab_size", 11), ("num_puzzle_identifiers", 3)]
)
def test_sizes_that_contradict_the_data(field, value, tiny):
    with pytest.raises(ConfigError, match=rf"model\.{field} is {value}, but the data have"):
        _build(tiny(**{f"model__{field}": value}))
    right = {"seq_len": 16, "vocab_size": 6, "num_puzzle_identifiers": 1}[field]
    assert getattr(_build(tiny(**{f"model__{field}": right})).config.model, field) == right


def test_missing_files(tiny, tmp_path):
    with pytest.raises(DataError, match="belong together"):
        _build(tiny(data={"train_csv": "x.csv"}))
    with pytest.raises(DataError, match="nowhere"):
        _build(tiny(data={"path": str(tmp_path / "nowhere")}))


# --- the step -------------------------------------------------------------------------------------


def _seen(task, steps=3):
    """The puzzles in the carry after each step; all rows halt at once."""
    state = task.init(jax.random.key(0))
    step = jax.jit(task.step)
    iterator = task.batches()
    seen = []
    for number in range(steps):
        batch = next(iterator)
        state, _ = step(state.replace(step=jnp.int32(number)), batch)
        seen.append((batch, jax.tree.map(np.asarray, state.rows.current_data)))
    return seen


@pytest.mark.parametrize("augment", [True, False])
def test_augmentation(augment, tiny):
    task = _build(tiny(data__augment=augment, model__halt_max_steps=1))
    changed = 0
    for batch, data in _seen(task):
        same = (data["inputs"] == batch["inputs"]).all(1)
        changed += (~same).sum()
        assert is_solution(from_tokens(data["labels"]), FOUR).all()
        given = data["inputs"] > 1
        np.testing.assert_array_equal(data["inputs"][given], data["labels"][given])
        if not augment:
            np.testing.assert_array_equal(data["labels"], batch["labels"])
    assert changed > 15 if augment else changed == 0


def test_training_with_hints(tiny):
    task = _build(tiny(data__augment=False, data__hints=0.5, model__halt_max_steps=1))
    seen = _seen(task)
    hinted = 0
    for batch, data in seen:
        np.testing.assert_array_equal(data["labels"], batch["labels"])
        old = batch["inputs"] > 1
        np.testing.assert_array_equal(data["inputs"][old], batch["inputs"][old])
        given = data["inputs"] > 1
        np.testing.assert_array_equal(data["inputs"][given], data["labels"][given])
        hinted += (data["inputs"] != batch["inputs"]).any(1).sum()
    assert 0.2 < hinted / (8 * len(seen)) < 0.8


def test_hints_come_after_the_symmetry(tiny):
    keys = jax.random.split(jax.random.key(0), 16)
    boards = {}
    for hints in (0.0, 1.0):
        task = _build(tiny(data__hints=hints))
        augment = jax.vmap(functools.partial(task.puzzle.augment, task.config.data))
        boards[hints] = map(np.asarray, augment(keys, task.train.inputs, task.train.labels))
    (before, answers), (after, same_answers) = boards.values()
    np.testing.assert_array_equal(same_answers, answers)
    assert ((after == before) | ((before == 1) & (after == answers))).all()
    assert (after != before).any(1).all()


@pytest.mark.parametrize("hints", [-0.1, 1.5])
def test_hints_are_a_share(hints, tiny):
    with pytest.raises(ConfigError, match=r"data\.hints: expected a share 0 to 1"):
        _build(tiny(data__hints=hints))


def test_every_draw_has_its_own_symmetry(tiny):
    task = _build(tiny(data__num_train=1, model__halt_max_steps=1))
    boards = np.concatenate([data["labels"] for _, data in _seen(task)])
    assert len(np.unique(boards, axis=0)) > 12


def test_over_microbatches():
    rows = {"x": jnp.arange(12.0).reshape(6, 2), "y": jnp.arange(6)}

    def function(part, carry):
        sums = {"sum": (part["x"] ** 2).sum(0)}
        return sums, (part["x"] + 1, part["y"] * 2), carry + part["y"].sum()

    whole = over_microbatches(function, rows, 0, jnp.int32(7))
    for size in (1, 2, 3, 6):
        parts = over_microbatches(function, rows, size, jnp.int32(7))
        jax.tree.map(np.testing.assert_array_equal, parts, whole)


# --- figures -----------------------------------------------------------------------------


def _rigged(size=4):
    """A network that always answers with the token at its input, and one token for blanks.

    Every weight of the blocks is 0, so z_H is normed noise of the embeddings alone: with H_cycles
    and L_cycles 1, z_H = RMS(RMS(z_H⁰ + RMS(…z_L⁰ + z_H⁰ + x))). The embeddings are so long that
    they win, and the head reads them.
    """
    width = 32
    config = HRMConfig(
        seq_len=16, vocab_size=6, hidden_size=width, num_heads=1, expansion=1.0, H_layers=1,
        L_layers=1, H_cycles=1, L_cycles=1, halt_max_steps=3, q_target="none",
        forward_dtype="float32",
    )  # fmt: skip
    zeros = jax.tree.map(jnp.zeros_like, recurrent.init(config, jax.random.key(0)))
    embedding = 100 * np.eye(6, width, dtype=np.float32)
    head = np.eye(width, 6, dtype=np.float32)
    head[1] = [0, 0, 1, 0, 0, 0]  # a blank is answered with token 2: the digit 1
    params = zeros["params"]
    params["embed_tokens"]["embedding"] = jnp.asarray(embedding)
    params["lm_head"]["kernel"] = jnp.asarray(head)
    return config, {"params": params, "constants": zeros["constants"]}


@pytest.mark.parametrize(("bias", "steps"), [(1.0, 1), (-1.0, 3)])
def test_figures_of_a_known_answer(bias, steps):
    config, variables = _rigged()
    variables["params"]["q_head"]["bias"] = jnp.array([bias, 0.0])
    solution = np.array([[2, 3, 4, 5, 4, 5, 2, 3, 3, 2, 5, 4, 5, 4, 3, 2]])
    questions = np.repeat(solution, 4, axis=0)
    questions[1][solution[0] == 2] = 1  # all four ones missing: the answer is right
    questions[2][[0, 1]] = 1  # a one and a two missing: half of the blanks, 15 of 16 cells
    questions[3][[1, 2, 3]] = 1  # none of the blanks, 13 of 16 cells
    puzzles = PuzzleSet.simple(questions, np.repeat(solution, 4, axis=0), 6, 0)
    figures = evaluate_puzzles(config, variables, puzzles, slots=2)
    assert figures["eval/exact_accuracy"] == 0.5
    np.testing.assert_allclose(figures["eval/accuracy"], (1 + 1 + 15 / 16 + 13 / 16) / 4)
    of_three = (1 + 0.5 + 0) / 3  # puzzle 0 has no blanks
    np.testing.assert_allclose(figures["eval/blank_accuracy"], of_three)
    assert figures["eval/q_halt_accuracy"] == 0.5
    assert figures["eval/steps"] == steps
    assert figures["eval/exact_accuracy_by_step"] == [0.5] * 3
    assert figures["eval/puzzles"] == 4
    fixed = evaluate_puzzles(config, variables, puzzles, halting="fixed", max_steps=5)
    assert fixed["eval/steps"] == 5
    assert fixed["eval/exact_accuracy_by_step"] == [0.5] * 5


def test_ignored_labels_are_not_scored():
    config, variables = _rigged()
    questions = np.full((2, 16), 3)
    labels = np.full((2, 16), 3)
    labels[0, :8] = IGNORED
    questions[0, :8] = 1
    labels[1, 0] = 4
    puzzles = PuzzleSet.simple(questions, labels, 6, IGNORED)
    figures = evaluate_puzzles(config, variables, puzzles)
    assert figures["eval/exact_accuracy"] == 0.5
    np.testing.assert_allclose(figures["eval/accuracy"], (1 + 15 / 16) / 2)
    assert figures["eval/blank_accuracy"] == 0.0  # the wrong label is the only one not given


@pytest.mark.parametrize("count", [1, 3, 8, 9])
def test_any_number_of_puzzles(count):
    config, variables = _rigged()
    inputs = np.random.default_rng(0).integers(2, 6, (count, 16))
    solved = solve_puzzles(config, variables, inputs, np.zeros(count, int), slots=4, max_steps=2)
    np.testing.assert_array_equal(solved.predictions, inputs)
    assert solved.steps.shape == (count,)


def test_slots_must_be_positive():
    config, variables = _rigged()
    with pytest.raises(ValueError, match="slots: expected at least 1, got 0"):
        solve_puzzles(config, variables, np.full((2, 16), 2), np.zeros(2, int), slots=0)


# --- learning ----------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns_a_handful_of_puzzles(tiny, tmp_path, start):
    """Through the same code, a model that learns beats one whose learning rate is next to 0."""

    class Memory(PuzzleTask):
        """Evaluates on the puzzles it is trained on."""

        def __init__(self, *args):
            super().__init__(*args)
            self.evaluated = self.train

    def outcome(rate):
        config = tiny(
            steps=400, eval_every=400, checkpoint_every=400, log_every=50, batch_size=16,
            data__num_train=8, data__augment=False, model__q_target="none",
            optimizer__name="muon", optimizer__learning_rate=rate, optimizer__weight_decay=0.0,
            optimizer__puzzle_emb_lr=rate, optimizer__lr_min_ratio=0.01,
        )  # fmt: skip
        folder = tmp_path / str(rate)
        task = Memory(tasks.parse(config), folder / "data")
        before = jax.tree.map(np.asarray, task.init(jax.random.key(0)).params)
        result = start(task, folder)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = [line["train/lm_loss"] for line in lines if "train/lm_loss" in line]
        moved = jax.tree.map(lambda a, b: np.abs(a - np.asarray(b)).max(), before,
                             result.state.params)  # fmt: skip
        return result.figures["eval/exact_accuracy"], losses, moved

    exact, losses, moved = outcome(3e-3)
    frozen_exact, frozen_losses, frozen_moved = outcome(1e-12)
    assert losses[-1] < 0.5 * losses[0]
    assert all(x > 1e-4 for x in jax.tree.leaves(moved))
    assert exact >= 0.75
    assert frozen_exact == 0
    assert frozen_losses[-1] > 0.8 * frozen_losses[0]
    assert all(x < 1e-6 for x in jax.tree.leaves(frozen_moved))


def test_config_is_completed_but_not_changed(tiny):
    config = tasks.parse(tiny())
    task = tasks.build(config)
    assert config.model.seq_len == 0
    assert dataclasses.replace(task.config, model=config.model) == config
