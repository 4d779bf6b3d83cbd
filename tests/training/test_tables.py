"""The puzzle table divided over devices: the same run, the same checkpoints, a part on each."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from hrm_jax import tasks
from hrm_jax.data.npy_folder import PuzzleSet, write_npy
from hrm_jax.fields import ConfigError
from hrm_jax.puzzles.sudoku.board import SudokuShape, to_tokens
from hrm_jax.puzzles.sudoku.generator import generate
from hrm_jax.tasks.puzzles.evaluation import evaluate_puzzles
from hrm_jax.trained.load import load
from hrm_jax.training import loop
from hrm_jax.training.sharding import make_mesh, place_batch, state_shardings

PUZZLES = 37  # no number of devices divides the rows of the table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """4×4 Sudokus of which each has an identifier of its own."""
    path = tmp_path_factory.mktemp("data")
    shape = SudokuShape.of(4)
    puzzles = generate(shape, PUZZLES, (6, 10), seed=0)
    for split, rows in (("train", np.arange(PUZZLES)), ("test", np.arange(8))):
        part = PuzzleSet.build(
            to_tokens(puzzles.questions[rows]),
            to_tokens(puzzles.answers[rows]),
            vocab_size=shape.vocab_size,
            ignore_label_id=0,
            puzzle_identifiers=rows + 1,
            puzzle_indices=np.arange(len(rows) + 1),
            group_indices=np.arange(len(rows) + 1),
            num_puzzle_identifiers=PUZZLES + 1,
        )
        write_npy(path, split, part, ["<blank>", *(f"puzzle {row}" for row in range(PUZZLES))])
    return path


@pytest.fixture(scope="module")
def config(folder, tiny):
    """Makes the configuration of a run on `folder`."""

    def make(**overrides):
        data = {"path": str(folder)}
        return tiny(data=data, steps=6, optimizer__ema=0.9, **overrides)

    return make


@pytest.fixture(scope="module")
def replicated(config, start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("replicated")
    return workdir, start(config(), workdir)


@pytest.fixture
def on_devices(monkeypatch):
    """Makes the loop use only so many devices."""

    def use(number):
        monkeypatch.setattr(
            loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:number])
        )

    return use


def _table(result):
    return result.state.tables["puzzle_emb"]


def test_a_divided_table_learns_the_same(replicated, config, tmp_path, start):
    result = start(config(shard_tables=True), tmp_path)
    table, expected = _table(result), _table(replicated[1])
    assert table.sharding.spec == PartitionSpec(None, ("data", "fsdp"))
    assert [x.data.shape for x in table.addressable_shards] == [(PUZZLES + 1, 8)] * 4
    assert expected.sharding.is_fully_replicated
    assert np.count_nonzero(np.any(np.asarray(expected) != 0, axis=1)) > 8
    # Signs of gradients: where one were turned by rounding, entries would differ by 1e-3.
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-7)
    for ours, theirs in zip(
        jax.tree.leaves(result.state.params), jax.tree.leaves(replicated[1].state.params),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_checkpoints_move_between_divided_and_whole_tables(config, tmp_path, start, on_devices):
    before = start(config(shard_tables=True), tmp_path)
    for devices, divided in ((1, False), (2, True), (4, False)):
        on_devices(devices)
        result = start(config(shard_tables=divided), tmp_path)
        shards = _table(result).addressable_shards
        assert {x.data.shape[1] for x in shards} == {32 // devices if divided else 32}
        np.testing.assert_array_equal(_table(result), _table(before))
    assert start({**config(shard_tables=True), "steps": 7}, tmp_path).step == 7
    model = load(tmp_path, 6)
    np.testing.assert_array_equal(model.variables["tables"]["puzzle_emb"], _table(before))


def test_a_divided_table_answers_the_same(replicated, config, tmp_path):
    task = tasks.build(tasks.parse(config()), tmp_path)
    state = replicated[1].state
    mesh = jax.tree.leaves(state.params)[0].sharding.mesh
    divided = jax.device_put(state, state_shardings(state, mesh, shard_tables=True))
    figures = [
        evaluate_puzzles(task.config.model, task.weights(some), task.test, slots=8)
        for some in (state, divided)
    ]
    for some in figures:
        some.pop("eval/puzzles_per_second")
    assert figures[0] == figures[1]


def test_no_device_holds_the_whole_table(config, tmp_path):
    """Neither rows nor gradients of more than the batch are made in the step."""
    task = tasks.build(tasks.parse(config(shard_tables=True)), tmp_path)
    mesh = make_mesh()
    key = jax.random.key(0)
    shapes = jax.eval_shape(task.init, key)
    shardings = state_shardings(shapes, mesh, shard_tables=True)
    state = jax.jit(task.init, out_shardings=shardings)(key)
    batch = place_batch(next(task.batches()), mesh)
    step = jax.jit(task.step, donate_argnums=0, out_shardings=(shardings, None))
    text = step.lower(state, batch).compile().as_text()
    assert f"f32[{PUZZLES + 1},8]" in text
    assert f"f32[{PUZZLES + 1},32]" not in text


def test_devices_must_divide_the_columns(config, tmp_path, start):
    with pytest.raises(ConfigError, match=r"shard_tables: 30 columns.*among 4 devices"):
        start(config(shard_tables=True, model__puzzle_emb_ndim=30), tmp_path)
