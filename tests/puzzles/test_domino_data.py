"""Generated domino positions, their augmentation, scores and data sets."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.identity import Identity
from hrm_jax.data.npy_folder import read_npy
from hrm_jax.puzzles.domino.augment import augment, shuffle_hand
from hrm_jax.puzzles.domino.encoding import decode, encode, encode_move
from hrm_jax.puzzles.domino.game import LEFT, RIGHT, Move, Position, best_move, legal_moves
from hrm_jax.puzzles.domino.generator import (
    DominoData,
    generate,
    position_key,
    to_puzzle_set,
)
from hrm_jax.puzzles.domino.puzzle import DOMINO
from hrm_jax.puzzles.domino.rules import check_examples, judge

augmented = jax.jit(jax.vmap(augment))


@functools.cache
def positions():
    return made(DominoData(seed=3), 400)


def made(data, count):
    return to_puzzle_set(generate(data, count).values())


# --- generator ------------------------------------------------------------------------------------


def test_positions_are_distinct_and_labelled_with_the_best_move():
    found = positions()
    decoded = [decode(tokens) for tokens in found.inputs]
    assert len({position_key(position) for position in decoded}) == len(found) == 400
    assert found.ratings.tolist() == [len(legal_moves(position)) for position in decoded]
    assert found.ratings.min() == 1
    assert (found.ratings > 1).mean() >= 0.5
    for position, labels in zip(decoded, found.labels, strict=True):
        np.testing.assert_array_equal(labels, encode_move(best_move(position)))
    lengths = np.array([len(position.table) for position in decoded])
    assert lengths.min() == 0
    assert lengths.max() > 15
    for end in (1, 2, 3):
        assert (found.labels[:, 2] == end).mean() > 0.01


def test_the_seed_decides_and_fewer_positions_come_from_the_same_games():
    again = made(DominoData(seed=3), 400)
    np.testing.assert_array_equal(again.inputs, positions().inputs)
    assert not np.array_equal(made(DominoData(seed=4), 400).inputs, again.inputs)
    free = DominoData(seed=3, choice=0.0)
    few, many = made(free, 50), made(free, 90)
    np.testing.assert_array_equal(few.inputs, many.inputs[:50])


def test_the_seeds_positions_stay_those_of_this_version():
    """Positions of a release must not change unnoticed with a library; raise VERSION with them."""
    found = made(DominoData(), 5)
    assert found.inputs[:, 70:].tolist() == [[2, 2], [3, 2], [3, 7], [1, 7], [0, 0]]
    want = [[3, 2, 1], [5, 3, 1], [4, 3, 1], [2, 1, 1], [6, 7, 3]]
    assert found.labels[:, :3].tolist() == want


@pytest.mark.parametrize("players", [(2,), (4,)])
def test_train_and_test_share_no_position(players):
    data = DominoData(num_train=300, num_test=300, players=players)
    train, test = ({position_key(decode(x)) for x in part.inputs} for part in DOMINO.make(data))
    assert len(train) == len(test) == 300
    assert not train & test
    some = sorted(test)[:50]
    assert not generate(data, 300, stream=1, exclude=some).keys() & set(some)


def test_the_key_forgets_order_direction_and_side():
    table, hand = ((2, 5), (5, 3)), ((1, 2), (3, 3))
    mirrored = Position(((3, 5), (5, 2)), ((3, 3), (2, 1)))
    assert position_key(Position(table, hand)) == position_key(mirrored)
    other = Position(((2, 5), (5, 3)), ((1, 2), (3, 4)))
    assert position_key(Position(table, hand)) != position_key(other)


def test_choices_only():
    assert made(DominoData(choice=1.0), 100).ratings.min() >= 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"players": (2, 5)}, "players is"),
        ({"players": ()}, "players is"),
        ({"greedy": 1.5}, "greedy is 1.5, expected 0 to 1"),
        ({"choice": -1.0}, "choice is"),
        ({"per_game": 0}, "per_game is 0"),
        ({"num_train": 0}, "0 positions"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_source_errors(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        DOMINO.build(tmp_path / "data", DominoData(**values))
    assert list(tmp_path.iterdir()) == []


# --- augmentation ---------------------------------------------------------------------------------


def test_augmented_positions_are_the_same_game_with_the_best_move():
    found = positions()
    count = len(found)
    keys = jax.random.split(jax.random.key(0), 3 * count)
    inputs, labels = np.tile(found.inputs, (3, 1)), np.tile(found.labels, (3, 1))
    new_inputs, new_labels = augmented(keys, inputs, labels)
    assert (new_inputs.dtype, new_labels.dtype) == (np.uint8, np.uint8)
    new_inputs, new_labels = np.asarray(new_inputs), np.asarray(new_labels)
    for row in range(3 * count):
        position = decode(new_inputs[row])
        assert position_key(position) == position_key(decode(found.inputs[row % count]))
        np.testing.assert_array_equal(new_labels[row], encode_move(best_move(position)))
    on_table = inputs[:, 70] != inputs[:, 71]
    mirrored = (new_inputs[:, 70] != inputs[:, 70])[on_table].mean()
    assert 0.4 < mirrored < 0.6
    turned = (inputs[:, 56] != new_inputs[:, 56]).mean()
    assert turned > 0.5


def test_augmentation_keeps_ignored_labels_and_is_a_function_of_the_key():
    inputs = positions().inputs[:8].astype(np.int32)
    labels = positions().labels[:8].astype(np.int32)
    labels[labels == 0] = -100
    keys = jax.random.split(jax.random.key(5), 8)
    once, again = augmented(keys, inputs, labels), augmented(keys, inputs, labels)
    assert (np.asarray(once[1])[:, 3:] == -100).all()
    assert once[1].dtype == jnp.int32
    np.testing.assert_array_equal(once[0], again[0])
    assert not np.array_equal(once[0], augmented(keys[::-1], inputs, labels)[0])


def test_a_shuffled_hand_has_the_same_best_move():
    found = positions()
    keys = jax.random.split(jax.random.key(2), len(found))
    shuffled = np.asarray(jax.vmap(shuffle_hand)(keys, found.inputs))
    assert shuffled.dtype == np.uint8
    np.testing.assert_array_equal(shuffled[:, :56], found.inputs[:, :56])
    np.testing.assert_array_equal(shuffled[:, 70:], found.inputs[:, 70:])
    assert (shuffled[:, 56:70] != found.inputs[:, 56:70]).any(1).mean() > 0.8
    for tokens, before, labels in zip(shuffled, found.inputs, found.labels, strict=True):
        position = decode(tokens)
        assert position_key(position) == position_key(decode(before))
        np.testing.assert_array_equal(encode_move(best_move(position)), labels)


def test_every_order_and_direction_of_the_hand_occurs():
    inputs = encode(Position(((3, 3),), ((1, 3), (2, 2))))
    labels = encode_move(Move(1, 3, LEFT))
    keys = jax.random.split(jax.random.key(1), 200)
    many, _ = augmented(keys, np.tile(inputs, (200, 1)), np.tile(labels, (200, 1)))
    hands = {tuple(row) for row in np.asarray(many)[:, 56:60].tolist()}
    assert hands == {(2, 4, 3, 3), (4, 2, 3, 3), (3, 3, 2, 4), (3, 3, 4, 2)}
    assert not np.asarray(many)[:, 60:70].any()


# --- scores ---------------------------------------------------------------------------------------


def test_scores_agree_with_the_game_on_all_predictions():
    """Every tile in both directions on every end, for many positions."""
    found = positions().inputs[::20]
    moves = [(a, b, end) for a in range(8) for b in range(8) for end in range(5)]
    predictions = np.zeros((len(moves), 72), np.int32)
    predictions[:, :3] = moves
    for tokens in found:
        position = decode(tokens)
        inputs = np.tile(tokens, (len(moves), 1))
        is_legal, is_optimal = judge(inputs, predictions)
        legal = legal_moves(position)
        heaviest = max(move.a + move.b for move in legal)
        for row, (a, b, end) in enumerate(moves):
            same = [
                move for move in legal if move.end == end and {move.a + 1, move.b + 1} == {a, b}
            ]
            assert is_legal[row] == bool(same)
            assert is_optimal[row] == any(move.a + move.b == heaviest for move in same)


def test_labels_score_full_marks_and_their_other_ends_are_optimal():
    found = positions()
    assert all(verdict.all() for verdict in judge(found.inputs, found.labels))
    position = Position(((2, 5), (5, 3)), ((2, 3), (0, 2)))
    prediction = encode_move(Move(3, 2, RIGHT))[None]
    assert (prediction[0] != encode_move(best_move(position))).any()
    assert [x.tolist() for x in judge(encode(position)[None], prediction)] == [[True], [True]]
    noise = np.random.default_rng(0).integers(0, 8, found.labels.shape)
    legal, optimal = judge(found.inputs, noise)
    assert optimal.mean() <= legal.mean() < 0.2


# --- data sets ------------------------------------------------------------------------------------


def test_build(tmp_path):
    source = DominoData(num_train=60, num_test=30)
    identity = DOMINO.build(tmp_path / "data", source)
    assert Identity.from_json((tmp_path / "data" / "identity.json").read_text()) == identity
    assert identity.counts == {"train_examples": 60, "test_examples": 30}
    for split, part in zip(("train", "test"), DOMINO.make(source), strict=True):
        stored = read_npy(tmp_path / "data", split)
        assert stored.digest() == identity.sha256[split] == part.digest()
        assert (stored.metadata.seq_len, stored.metadata.vocab_size) == (72, 8)
        assert stored.ratings.min() >= 1
        for _, bad, what in check_examples(stored.inputs.astype(int), stored.labels.astype(int)):
            assert not bad.any(), what
    with pytest.raises(DataError, match="not empty"):
        DOMINO.build(tmp_path / "data", source)
    other = DOMINO.build(
        tmp_path / "data", dataclasses.replace(source, seed=1), overwrite=True
    ).differences(identity)
    assert {line.split(":")[0] for line in other} == {"seed", "sha256.train", "sha256.test"}
