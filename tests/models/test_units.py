"""The mixer "units": what the network commutes with, where it starts, and what a node sees."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import KEY, random_variables

from hrm_jax import tasks
from hrm_jax.fields import ConfigError
from hrm_jax.layers.units import UnitsBlock, groups_of_cells
from hrm_jax.models import act
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.puzzles import PUZZLES
from hrm_jax.tasks.puzzles.model import PuzzleModel

SIZES = {
    "mixer": "units", "hidden_size": 16, "unit_width": 6, "expansion": 1.0, "width_multiple": 8,
    "L_layers": 1, "L_cycles": 2, "forward_dtype": "float32",
}  # fmt: skip


def config_of(puzzle, seq_len, kind=TRMConfig, **fields):
    kinds = PUZZLES[puzzle].units(seq_len)
    return kind(
        seq_len=seq_len,
        vocab_size=PUZZLES[puzzle].vocab_size(seq_len),
        units=tuple(tuple(tuple(group.tolist()) for group in kind) for kind in kinds),
        values=PUZZLES[puzzle].values(seq_len),
        **SIZES,
        **fields,
    )


@functools.cache
def examples(puzzle, **fields):
    data = PUZZLES[puzzle].data(num_train=8, num_test=8, **fields)
    return PUZZLES[puzzle].load(data).train.inputs.astype(np.int32)


@pytest.mark.parametrize("kind", [HRMConfig, TRMConfig], ids=lambda kind: kind.variant)
@pytest.mark.parametrize(("puzzle", "size"), [("sudoku", 9), ("sudoku", 6), ("latin", 5)])
def test_it_commutes_with_the_symmetries_of_digits(puzzle, size, kind):
    """Relabelled digits, permuted bands and rows, transposition. One step: random networks are
    chaotic, and rounding grows."""
    config = config_of(puzzle, size * size, kind, H_cycles=1, halt_max_steps=1)
    variables = random_variables(config, seed=3)
    head = variables["params"]["lm_head"]
    head["kernel"] = head["kernel"].at[:, :-1].set(0)  # of blank and pad
    questions, rules = examples(puzzle, size=size), PUZZLES[puzzle]
    keys = jax.random.split(KEY, len(questions))
    changed = jax.vmap(rules.transform)(keys, questions)
    assert (np.asarray(changed) != questions).any(1).all()
    model = PuzzleModel(config, variables, rules)
    plain = model.answers(questions, halting="fixed")
    other = model.answers(np.asarray(changed), halting="fixed")
    np.testing.assert_allclose(other.q_halt, plain.q_halt, atol=1e-4)
    restored = jax.vmap(rules.restore)(keys, other.predictions)
    batch = {"inputs": questions, "puzzle_identifiers": np.zeros(len(questions), np.int32)}
    logits = np.sort(model.act_step(model.initial_carry(batch), batch)[1].logits)
    apart = logits[..., -1] - logits[..., -2]  # 0 where no digit is likelier than blank and pad
    close = (apart > 0) & (apart < 1e-3)
    assert close.mean() < 0.1
    np.testing.assert_array_equal(restored[~close], plain.predictions[~close])
    assert len(np.unique(plain.predictions)) > 1


def test_a_maze_has_nodes_of_cells_alone_and_its_symmetries():
    config = config_of("maze", 25, halt_max_steps=1)
    assert (config.values, config.positions(25)) == (0, 25)
    questions = examples("maze", size=5, min_path=3)
    model = PuzzleModel(config, random_variables(config), PUZZLES["maze"])

    def mirrored(boards):
        return np.flip(boards.reshape(8, 5, 5, -1), 2).reshape(boards.shape)

    def logits(boards):
        batch = {"inputs": boards, "puzzle_identifiers": np.zeros(8, np.int32)}
        return np.asarray(model.act_step(model.initial_carry(batch), batch)[1].logits)

    plain = logits(questions)
    np.testing.assert_allclose(mirrored(logits(mirrored(questions))), plain, atol=1e-5)
    assert np.abs(plain - mirrored(plain)).max() > 0.1


def test_a_node_sees_its_units_and_nothing_else():
    kinds = tuple(tuple(tuple(g.tolist()) for g in kind) for kind in PUZZLES["latin"].units(16))
    block = UnitsBlock(kinds, 4, width=8, unit_width=4)
    x = jax.random.normal(KEY, (1, 64, 8))
    weights = block.init(KEY, x)
    node = 5 * 4 + 2  # row 1, column 1, the third value
    before, after = (block.apply(weights, y)[0] for y in (x, x.at[0, node].add(1.0)))
    changed = set(np.flatnonzero(np.abs(after - before).max(1) > 1e-6).tolist())
    cells = {(row, column) for row in range(4) for column in range(4)}
    seen = {(4 * r + c) * 4 + 2 for r, c in cells if r == 1 or c == 1}
    assert changed == seen | {5 * 4 + value for value in range(4)}


def test_groups():
    for kind, expected in (
        (((2, 0), (1,)), [[0], [1], [0]]),
        (((0, 1), (0, 1, 2), (1, 2)), [[0], [1], [2]]),
        (((0, 1, 2), (2,), (0, 1)), [[0, 2], [0, 2], [0, 1]]),
    ):
        np.testing.assert_array_equal(groups_of_cells(kind, 3), expected)
    for bad in (((0, 1), (1, 2)), ((0,), (1,)), ((0, 1), (2, 3)), ((0,), (1,), ()), ()):
        with pytest.raises(ConfigError, match=r"model\.units: expected groups of which each of 3"):
            groups_of_cells(bad, 3)


def test_restarts_differ_by_key_and_place_alone():
    config = config_of("sudoku", 16, restart_noise=1.0, halt_max_steps=2)
    variables, questions = random_variables(config), examples("sudoku", size=4)
    model = PuzzleModel(config, variables, PUZZLES["sudoku"])
    plain, again = (model.answers(questions) for _ in range(2))
    np.testing.assert_array_equal(plain.q_halt, again.q_halt)
    ballots = [
        model.answers(questions, key=jax.random.key(i), slots=s) for i, s in ((1, 8), (1, 3))
    ]
    np.testing.assert_allclose(ballots[0].q_halt, ballots[1].q_halt, atol=1e-5)
    assert (ballots[0].q_halt != plain.q_halt).all()
    assert len(set(model.answers(np.stack([questions[0]] * 4), key=KEY).q_halt.tolist())) == 4
    assert {solution.votes for solution in model.solve_tokens(questions, votes=3)} <= {1, 2, 3}
    other = PuzzleModel(dataclasses.replace(config, restart_noise=0.0), variables)
    with pytest.raises(ConfigError, match="votes: the mixer 'units' answers alike"):
        other.solve_tokens(questions, votes=2)


def test_a_row_that_does_not_halt_starts_anew():
    fields = {"restart_noise": 1.0, "halt_max_steps": 6, "halt_threshold": 1e9}
    config = config_of("sudoku", 16, **fields)
    variables, questions = random_variables(config), examples("sudoku", size=4)

    def solved(halting="q", slots=8, **fields):
        model = PuzzleModel(dataclasses.replace(config, **fields), variables, PUZZLES["sudoku"])
        return model.answers(questions, halting=halting, slots=slots, trace=True)

    plain, again = solved(), solved(restart_after=2)
    np.testing.assert_array_equal([plain.steps, again.steps], 6)
    np.testing.assert_array_equal(again.trace[:, :2], plain.trace[:, :2])
    assert (again.q_halt != plain.q_halt).all()
    for same in ({"restart_after": 4}, {"restart_after": 2, "slots": 3}):  # both start at step 4
        np.testing.assert_allclose(again.q_halt, solved(**same).q_halt, atol=1e-5)
    fixed = [solved("fixed", restart_after=n).q_halt for n in (0, 2)]
    np.testing.assert_array_equal(*fixed)
    once = float(np.median(solved(halt_max_steps=1).q_halt))  # some halt at their first step
    halts = [solved(restart_after=n, halt_threshold=once) for n in (0, 1)]
    early = halts[0].steps == 1
    assert 0 < early.sum() < 8
    np.testing.assert_allclose(halts[1].q_halt[early], halts[0].q_halt[early], atol=1e-5)


def test_the_first_states_are_drawn_in_training():
    config = config_of("sudoku", 16, restart_noise=0.5)
    constants = {"H_init": jnp.full(16, 2.0), "L_init": jnp.full(16, 3.0)}
    batch = {"inputs": jnp.ones((64, 16), int), "puzzle_identifiers": jnp.zeros(64, int)}
    carry = act.initial_carry(config, batch)
    noise = act.start_noise(config, jax.random.split(KEY, 64), carry.z_H)
    full = act.refill(carry, batch, constants, noise)
    for states, mean in ((full.z_H, 2), (full.z_L, 3)):
        np.testing.assert_allclose([states.mean(), states.std()], [mean, 0.5], rtol=0.02)
    assert np.abs(np.corrcoef(np.ravel(full.z_H - 2), np.ravel(full.z_L - 3))[0, 1]) < 0.02


@pytest.mark.parametrize("task", ["sudoku", "maze", "arc"])
def test_it_learns_a_few_puzzles_by_the_task(task):
    """With a puzzle embedding, which is added to all nodes."""
    fields = {"sudoku": {"size": 4}, "maze": {"size": 5, "min_path": 3}}.get(
        task, {"side": 5, "families": "recolour", "num_aug": 0}
    )
    config = {
        "task": task, "steps": 40, "batch_size": 8, "loss": "softmax",
        "data": {"num_train": 8, "num_test": 8, "augment": False, **fields},
        "model": {"name": "trm", **SIZES, "puzzle_emb_ndim": 16, "restart_noise": 0.1,
                  "halt_max_steps": 3},
        "optimizer": {"name": "muon", "learning_rate": 2e-2, "warmup_steps": 4},
    }  # fmt: skip
    if task == "arc":
        with pytest.raises(
            ConfigError, match=r"model\.mixer: 'units', but arc puzzles say of none"
        ):
            tasks.build(tasks.parse(config))
        return
    made = tasks.build(tasks.parse(config))
    state, batches, losses = made.init(KEY), made.batches(), []
    step = jax.jit(made.step)
    for _ in range(40):
        state, metrics = step(state, next(batches))
        losses.append(float(metrics["lm_loss"][0] / metrics["lm_loss"][1]))
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert np.isfinite(losses).all()
    assert np.abs(state.tables["puzzle_emb"]).max() > 0


def test_what_does_not_fit_is_named():
    for fields, message in (
        ({"puzzle_emb_ndim": 17}, r"model\.puzzle_emb_ndim: expected at most hidden_size 16"),
        ({"mlp_t": True}, r"model\.mlp_t: .* but model\.mixer is 'units'"),
    ):
        with pytest.raises(ConfigError, match=message):
            config_of("sudoku", 16, **fields)
    with pytest.raises(ConfigError, match=r"model\.restart_noise: 0.5 has no effect: mixer is not"):
        tasks.parse({"task": "sudoku", "model": {"restart_noise": 0.5}})
