"""TenMinaTorc's config.json and token arrays: what is taken, what is refused."""

import json
import pathlib

import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.fields import ConfigError, to_mapping

ROOT = pathlib.Path(__file__).parents[2]
MANUAL = {
    "model": {
        **{"vocab_size": 50000, "d_model": 512, "num_heads": 8, "num_layers": 6, "d_ff": 2048},
        "max_len": 2048,
    },
    "training": {
        **{"batch_size": 32, "learning_rate": 0.0001, "max_iterations": 69},
        **{"early_stop_patience": 12, "checkpoint_dir": "./checkpoints"},
    },
}


@pytest.fixture
def config(tmp_path):
    def make(content, preset="laptop", **fields):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(content))
        found = tasks.file_config(ROOT / "configs" / "transformer.py", preset)
        found.from_json = str(path)
        for name, value in fields.items():
            found[name] = value
        return found.to_dict()

    return make


@pytest.mark.parametrize("preset", ["laptop", "paper"])
def test_the_manual_s_file(config, preset):
    found = tasks.parse(config(MANUAL, preset))
    model = found.model
    assert (model.vocab_size, model.hidden_size, model.ffn_size) == (50000, 512, 2048)
    assert (model.num_heads, model.num_layers, model.max_length) == (8, 6, 2048)
    assert (found.batch_size, found.optimizer.learning_rate) == (32, 1e-4)
    assert (found.control.max_iterations, found.early_stopping.patience) == (69, 12)
    assert found.from_json == ""  # the run keeps what it said
    assert tasks.parse({**to_mapping(found), "preset_values": to_mapping(found)}) == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"d_modell": 8}}, r"config\.json: .*'model\.d_modell'; did you mean 'd_model'"),
        ({"modell": {}}, r"config\.json: unknown config field 'modell'"),
        ({"training": {"epochs": 3}}, r"unknown config field 'training\.epochs'"),
        ({"model": {"d_model": "x"}}, r"model\.hidden_size: expected int, got 'x'"),
        ({"training": {"batch_size": 8}}, r"config\.batch_size: 5, but .*batch_size: 8"),
    ],
)
def test_what_is_not_understood_is_refused(config, content, message):
    with pytest.raises(ConfigError, match=message):
        tasks.parse(config(content, **({"batch_size": 5} if "training" in content else {})))


TEXT = "uno dos tres cuatro " * 30


def _text(train, test=""):
    data = {"train": str(train), "test": str(test), "length": 32, "eval_stride": 16}
    model = {"name": "transformer", "hidden_size": 16, "num_heads": 2, "ffn_size": 16}
    sizes = {**model, "num_layers": 1, "max_length": 32, "dropout": 0.0}
    return tasks.build(tasks.parse({"task": "text", "batch_size": 4, "data": data, "model": sizes}))


def test_tokens_are_read_as_their_text_would_be(tmp_path):
    tokens = np.frombuffer(TEXT.encode(), np.uint8)
    np.save(tmp_path / "a.npy", tokens)
    (tmp_path / "a.txt").write_text(TEXT)
    one, other = (_text(tmp_path / f"a.{x}", tmp_path / f"a.{x}") for x in ("npy", "txt"))
    np.testing.assert_equal(next(one.batches()), next(other.batches()))
    for found, expected in zip(one.held_out(), other.held_out(), strict=True):
        np.testing.assert_equal(found, expected)
    assert next(iter(one.held_out_records()))["text"] == TEXT
    assert one.identity.counts["training_tokens"] == len(TEXT)
    rows = tokens.reshape(20, -1).astype(np.int64)
    np.save(tmp_path / "rows.npy", rows)
    train, test = _text(tmp_path / "rows.npy").documents
    assert len(train) + len(test) == 20
    train, test = _text(tmp_path / "a.npy").documents
    assert np.concatenate([train.tokens, test.tokens]).tolist() == tokens.tolist()
    assert len(test.tokens) == round(0.05 * len(tokens))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(8), r"a\.npy: dtype is float64, expected integers"),
        (np.zeros((2, 2, 2), int), r"a\.npy: shape is \(2, 2, 2\), expected \[N\] or \[rows, N\]"),
        (np.zeros(0, int), r"a\.npy: shape is \(0,\), expected"),
        (np.array([[1, 2], [3, 300]]), r"a\.npy: token 300 at \[1, 1\], expected .* \[0, 260\)"),
        (np.array([1, -1]), r"a\.npy: token -1 at \[0, 1\]"),
        (np.array([{}]), r"a\.npy: .*expected an array of tokens"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_tokens(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=message):
        _ = _text(tmp_path / "a.npy").documents


def test_text_and_tokens_do_not_mix(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    np.save(tmp_path / "a.npy", np.arange(5))
    with pytest.raises(
        ConfigError, match=r"data\.test: .*a\.npy: expected text, as data\.train has"
    ):
        _ = _text(tmp_path / "a.txt", tmp_path / "a.npy").documents
    with pytest.raises(DataError, match=r"b\.npy: there is no such file"):
        _ = _text(tmp_path / "b.npy").documents
