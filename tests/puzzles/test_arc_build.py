"""ARC data sets: what is in which split, that nothing leaks, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.puzzles.arc.augment import canonical, parse_names
from hrm_jax.puzzles.arc.build import ArcData, load_tasks, to_puzzle_sets
from hrm_jax.puzzles.arc.leaks import without_leaks
from hrm_jax.puzzles.arc.puzzle import ARC
from hrm_jax.puzzles.arc.questions import Questions
from hrm_jax.puzzles.arc.reader import ArcTask
from hrm_jax.puzzles.arc.synthetic import generate_tasks
from hrm_jax.puzzles.arc.test_split import ArcTest
from hrm_jax.puzzles.arc.tokens import decode, encode
from hrm_jax.puzzles.arc.vote import Ballot, cell_accuracy, pass_at_k

SMALL = ArcData(num_train=14, num_test=10, num_aug=5, side=5)


def as_json(task, answers=True):
    return {
        "train": [{"input": x.tolist(), "output": y.tolist()} for x, y in task.train],
        "test": [
            {"input": x.tolist()} | ({"output": y.tolist()} if answers else {})
            for x, y in task.test
        ],
    }


def stored(folder, split, tasks, **options):
    (folder / split).mkdir(parents=True)
    for task in tasks:
        (folder / split / f"{task.name}.json").write_text(json.dumps(as_json(task, **options)))
    return folder


def hidden(task):
    return dataclasses.replace(task, test=tuple((source, None) for source, _ in task.test))


@pytest.fixture(scope="module")
def small():
    return ARC.load(SMALL)


def test_splits_and_their_order(small):
    training, evaluation, left_out = load_tasks(SMALL)
    assert not left_out
    train, test = small.train, small.test
    assert (train.metadata.total_groups, test.metadata.total_groups) == (24, 10)
    assert train.inputs.shape == (14 * 6 * 4 + 10 * 6 * 3, 36)
    assert test.inputs.shape == (10 * 6, 36)
    assert train.inputs.dtype == train.labels.dtype == np.uint8
    assert train.metadata.vocab_size == 12
    assert train.metadata.ignore_label_id == 0
    assert train.group_indices.tolist() == list(range(0, 24 * 6 + 1, 6))
    assert small.test.identifiers[0] == "<blank>"
    assert len(small.test.identifiers) == len(set(small.test.identifiers)) == 1 + 24 * 6
    assert train.puzzle_identifiers.tolist() == list(range(1, 1 + 24 * 6))
    assert test.puzzle_identifiers.tolist() == list(range(1 + 14 * 6, 1 + 24 * 6))
    for split, tasks, first in ((train, [*training, *evaluation], 1), (test, evaluation, 85)):
        row = 0
        for task in tasks:
            names = small.test.identifiers[first : first + 6]
            held_out = first > 14 * 6
            first += 6
            pairs = task.test if split is test else (*task.train, *task.test[: 1 - held_out])
            assert names[0] == task.name
            for name in names:
                symmetry = parse_names([name])[1]
                for source, target in pairs:
                    x, y = (encode(symmetry.apply(0, grid), 6) for grid in (source, target))
                    np.testing.assert_array_equal(split.inputs[row], x)
                    np.testing.assert_array_equal(split.labels[row], y)
                    row += 1
        assert row == len(split)


def test_questions_say_where_each_example_comes_from(small):
    _, evaluation, _ = load_tasks(SMALL)
    questions = small.test.questions
    assert [(q.task, q.index) for q in questions.items] == [(t.name, 0) for t in evaluation]
    assert questions.item.tolist() == np.repeat(np.arange(10), 6).tolist()
    assert questions.augmentation.tolist() == list(range(6)) * 10
    for row, (tokens, labels) in enumerate(zip(small.test.inputs, small.test.labels, strict=True)):
        source, target = evaluation[questions.item[row]].test[0]
        np.testing.assert_array_equal(questions.symmetry.undo(row, decode(tokens)), source)
        np.testing.assert_array_equal(questions.symmetry.undo(row, decode(labels)), target)
        np.testing.assert_array_equal(questions.items[questions.item[row]].answer, target)


def test_several_test_inputs_and_fewer_test_augmentations():
    tasks = generate_tasks(6, 0)
    double = dataclasses.replace(tasks[5], test=(*tasks[5].test, (tasks[4].test[0][0], None)))
    _, test, names = to_puzzle_sets(tasks[:4], [double], ArcData(num_aug=4, test_aug=2))
    questions = Questions.of(test, names)
    assert len(names) == 1 + 5 * 5
    assert questions.item.tolist() == [0, 1] * 3
    assert questions.augmentation.tolist() == [0, 0, 1, 1, 2, 2]
    assert [(q.index, q.answer is None) for q in questions.items] == [(0, False), (1, True)]
    assert not test.labels[1::2].any()
    np.testing.assert_array_equal(questions.items[1].source, tasks[4].test[0][0])
    with pytest.raises(DataError, match="there are no evaluation tasks"):
        to_puzzle_sets(tasks, [], ArcData())


def forms(split):
    return {
        canonical([decode(x), decode(y)]) for x, y in zip(split.inputs, split.labels, strict=True)
    }


def test_no_answer_of_the_test_is_in_training(small):
    assert not forms(small.train) & forms(small.test)


def test_no_answer_of_arc_agi_1_is_in_training(data):
    agi, concept = (str(data / "arc" / f"{name}.tar.gz") for name in ("ARC-AGI-1", "ConceptARC"))
    wanted = ArcData(training=f"{agi},{concept}", evaluation=agi, num_aug=1)
    train, test = ARC.make(wanted)
    assert train.metadata.total_groups == 960
    assert test.metadata.total_groups == 400
    assert len(test.questions.items) == 419
    left_out = load_tasks(wanted)[2]
    assert [line.split(":")[0] for line in left_out] == ["40853293", "caa06a1f"]
    own = {  # given to solvers, and in the public data
        "00576224", "3979b1a8", "66e6c45b", "94414823", "992798f6", "ca8de6ea", "f3e62deb",
    }  # fmt: skip
    answered = forms(train)
    leaks = {q.task for q in test.questions.items if canonical([q.source, q.answer]) in answered}
    assert leaks == own
    assert test.baselines["copy_pass_at_1"] == 0
    assert test.baselines["copy_cell_accuracy"] == pytest.approx(0.757, abs=1e-3)


def test_arc_agi_2_in_training_refuses_arc_agi_1_in_evaluation(data):
    one, two = (str(data / "arc" / f"ARC-AGI-{number}.tar.gz") for number in (1, 2))
    message = r"376 of 400 evaluation tasks are among the training tasks: 00576224 \(a training"
    with pytest.raises(DataError, match=message):
        load_tasks(ArcData(training=two, evaluation=one))
    with pytest.raises(DataError, match=r"ARC-AGI-2.*task 007bbfb7 is also in .*ARC-AGI-1"):
        load_tasks(ArcData(training=f"{one}, {two}", evaluation=two))


def test_tasks_under_other_names_are_refused(tmp_path):
    tasks = generate_tasks(8, 0)
    sly = [dataclasses.replace(tasks[0], name="sly"), *tasks[5:]]
    with pytest.raises(DataError, match=r"1 of 4 .*: sly \(its test pair is in recolour-00000\)"):
        without_leaks(tasks[:5], sly)
    with pytest.raises(DataError, match=r"1 of 4 .*: sly \(its test pair is in recolour-00000\)"):
        without_leaks(tasks[:5], [hidden(task) for task in sly])
    turned = tuple((np.rot90(x), np.rot90(y)) for x, y in tasks[0].train)
    asks = dataclasses.replace(tasks[6], test=(turned[1],))
    with pytest.raises(DataError, match=r"1 of 2 .*: lines-00006 \(its test pair is in recolour-0"):
        without_leaks(tasks[:5], [asks, tasks[7]])
    with pytest.raises(DataError, match=r"2 of 3 .*: gravity-00002 \(a training task has its n"):
        without_leaks(tasks[:5], tasks[2:4] + tasks[7:])
    same_input = dataclasses.replace(tasks[6], test=((tasks[0].test[0][0], None),))
    assert without_leaks(tasks[:5], [same_input])[1] == []  # another rule: no leak


def test_a_rare_pair_that_gives_an_answer_is_left_out():
    tasks = generate_tasks(110, 0)
    training, evaluation = tasks[:5], tasks[5:]
    twin = dataclasses.replace(training[3], train=(*training[3].train, evaluation[9].test[0]))
    only = ArcTask("only", (evaluation[9].test[0],), ())
    kept, left_out = without_leaks([*training[:3], twin, training[4], only], evaluation)
    assert [task.name for task in kept] == [task.name for task in training]
    assert len(kept[3].train) == len(training[3].train)
    assert left_out == [
        f"{place}: what it holds of {evaluation[9].name}'s test" for place in (twin.name, "only")
    ]


def test_files_and_folder_round_trip(tmp_path):
    tasks = generate_tasks(14, 1)
    source = ArcData(
        training=str(stored(tmp_path / "a", "training", tasks[:9])),
        evaluation=str(stored(tmp_path / "b", "evaluation", tasks[9:])),
        num_aug=3,
        canvas=8,
    )
    data = ARC.load(source)
    identity = ARC.build(tmp_path / "built", source)
    assert identity == data.identity
    assert identity.counts["test_examples"] == 5 * 4
    again = ARC.load(ArcData(path=str(tmp_path / "built")))
    assert dataclasses.replace(again.identity, seed=0) == identity
    assert again.test.identifiers == data.test.identifiers
    np.testing.assert_array_equal(again.test.questions.item, data.test.questions.item)
    assert sorted(path.name for path in (tmp_path / "built").iterdir()) == [
        "identifiers.json", "identity.json", "test", "train",
    ]  # fmt: skip
    with pytest.raises(DataError, match="folder is not empty"):
        ARC.build(tmp_path / "built", source)
    other = ARC.build(tmp_path / "built", dataclasses.replace(source, seed=1), overwrite=True)
    assert other.sha256["train"] != identity.sha256["train"]

    unsolved = stored(tmp_path / "c", "test", tasks[9:], answers=False)
    _, unknown = ARC.make(dataclasses.replace(source, evaluation=str(unsolved)))
    assert unknown.identifiers == data.test.identifiers
    assert not unknown.labels.any()
    assert not unknown.baselines
    for score in (pass_at_k, cell_accuracy):
        with pytest.raises(DataError, match="no answers of the test are known"):
            score(Ballot(unknown.questions))


def test_damaged_folders_are_refused(tmp_path, small):
    ARC.build(tmp_path / "x", SMALL)
    names = tmp_path / "x" / "identifiers.json"
    for text, message in (
        ("{", "not valid JSON"),
        ("{}", "expected a list of names"),
        (json.dumps(small.test.identifiers[:-1]), "names 144 identifiers, the test split has 145"),
        (json.dumps(small.test.identifiers[::-1]), "holds other tasks"),
    ):
        names.write_text(text)
        with pytest.raises(DataError, match=message):
            ARC.read_both(tmp_path / "x")
    names.unlink()
    with pytest.raises(DataError, match=r"identifiers\.json: cannot be read"):
        ARC.read_both(tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": "x"}, "training and evaluation belong together"),
        ({"num_aug": -1}, "num_aug is -1, expected 0 or more"),
        ({"num_test": 0}, "num_train is 14, num_test 0"),
        ({"canvas": 4}, r"has a grid of 5 rows or columns, the canvas has 4; set max_grid"),
        ({"max_grid": 1}, "max_grid is 1: 0 training and 0 evaluation tasks are left"),
    ],
)
def test_bad_sources_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        ARC.make(dataclasses.replace(SMALL, **change))


def test_large_tasks_are_left_out():
    source = ArcData(
        num_train=60, num_test=60, side=5, demonstrations=1, families="mirror", max_grid=4
    )
    training, evaluation, _ = load_tasks(source)
    tasks = [*training, *evaluation]
    assert 0 < len(tasks) < 120
    assert max(task.side() for task in tasks) <= 4


def test_baselines():
    """Two questions: one output of the input's size, three of four cells equal; one smaller."""
    grid = lambda *rows: np.array(rows, np.uint8)  # noqa: E731
    demonstration = ((grid([1]), grid([7, 7], [7, 0])),)
    tasks = [
        ArcTask("a", demonstration, ((grid([1, 2], [3, 4]), grid([1, 2], [3, 7])),)),
        ArcTask("b", demonstration, ((grid([7, 5]), grid([7])),)),
        ArcTask("c", demonstration, ((grid([5]), grid([5])),)),
    ]
    train, test, names = to_puzzle_sets([], tasks, ArcData(canvas=3, num_aug=3))
    assert ArcTest.of(train, test, names).baselines == {
        "copy_pass_at_1": pytest.approx(1 / 3),
        "copy_cell_accuracy": pytest.approx(5 / 6),
        "colour_pass_at_1": 0,
        "colour_cell_accuracy": pytest.approx(2 / 6),
    }
