"""Prompt and target from files to batches."""

import gzip
import json

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.pipeline import batch_iterator
from hrm_jax.data.text.pairs import PairBatches, Pairs, encode_pairs, read_pairs
from hrm_jax.data.text.tokenizers import EOS, PAD, ByteTokenizer

TOKENIZER = ByteTokenizer()


def _pairs(count):
    return Pairs(
        tuple(f"{i}" for i in range(count)),
        tuple("abc"[: 1 + i % 3] for i in range(count)),
        tuple(f"f:{i + 1}" for i in range(count)),
    )


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress], ids=["plain", "gz"])
def test_tsv(tmp_path, pack):
    path = tmp_path / ("a.tsv.gz" if pack is gzip.compress else "a.tsv")
    text = "\ufeff¿uno?\tsí\r\n\n dos \\n\\t\\\\n\tC:\\x \n"
    path.write_bytes(pack(text.encode()))
    pairs = read_pairs(path)
    assert pairs.prompts == ("¿uno?", " dos \n\t\\n")
    assert pairs.targets == ("sí", "C:\\x ")
    assert pairs.where == (f"{path}:1", f"{path}:3")


@pytest.mark.parametrize(
    ("text", "prompts", "targets"),
    [
        ("prompt\ttarget\na\tb\n", ("a",), ("b",)),
        ("Question\tAnswer\na\tb\n", ("a",), ("b",)),
        ("\nid\tTarget\tprompt\n1\tb\ta\\t\n", ("a\t",), ("b",)),
        ("uno\tone\nprompt\ttarget", ("uno", "prompt"), ("one", "target")),
    ],
)
def test_a_first_line_that_names_columns(tmp_path, text, prompts, targets):
    (tmp_path / "a.tsv").write_text(text)
    pairs = read_pairs(tmp_path / "a.tsv")
    assert (pairs.prompts, pairs.targets) == (prompts, targets)
    (tmp_path / "a.tsv").write_text("x\tq\tr\n1\t2\n")
    with pytest.raises(
        DataError, match=r"a\.tsv:2: there are 1 tabs on the line, expected 2 as in"
    ):
        read_pairs(tmp_path / "a.tsv", prompt_field="q", target_field="R")


def test_tokens_beyond_the_vocabulary_are_refused():
    class Wrong(ByteTokenizer):
        def encode(self, text):
            return [300 if text == "b" else 1]

    with pytest.raises(DataError, match=r"f:2: token 300, expected tokens in \[0, 260\)"):
        encode_pairs(Pairs(("a", "b"), ("a", "a"), ("f:1", "f:2")), Wrong(), 4, 4)


def test_jsonl(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"q": "a\tb\n", "a": "\\n"}) + "\n")
    pairs = read_pairs(path, prompt_field="q", target_field="a")
    assert (pairs.prompts, pairs.targets, pairs.where) == (("a\tb\n",), ("\\n",), (f"{path}:1",))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.tsv", b"x\ty\nno tab", r"a\.tsv:2: there is no tab on the line, expected prompt<TAB>"),
        ("a.tsv", b"x\ty\tz", r"a\.tsv:1: there are 2 tabs on the line"),
        ("a.tsv", b"x\ty\nx\t \r\n", r"a\.tsv:2: the target is empty"),
        ("a.tsv", b"\ty", r"a\.tsv:1: the prompt is empty"),
        ("a.tsv", b"x\ty\nx\t\xff", r"a\.tsv:2: invalid UTF-8: invalid start byte at byte 3"),
        ("a.tsv", b"\n", r"a\.tsv: there are no pairs in it"),
        ("a.tsv.gz", b"x\ty", r"a\.tsv\.gz: cannot be read"),
        ("a.jsonl", b"{", r"a\.jsonl:1: expected one JSON object a line"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1: expected one JSON object a line"),
        ("a.jsonl", b'{"prompt": "x"}', r"a\.jsonl:1: there is no field 'target'"),
        ("a.jsonl", b'{"prompt": "x", "target": [1]}', r"a\.jsonl:1: target is of type list"),
    ],
)
def test_bad_lines_are_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.tsv: there is no such file"):
        read_pairs(tmp_path / "x.tsv")


def test_digest_counts_texts():
    pairs = _pairs(3)
    assert pairs.digest() == Pairs(pairs.prompts, pairs.targets, ("", "", "")).digest()
    assert Pairs(("ab",), ("c",), ("",)).digest() != Pairs(("a",), ("bc",), ("",)).digest()


def test_targets_end_in_eos_and_rows_are_filled_up():
    pairs = Pairs(("ñ", "abcd"), ("xyz", "x"), ("1", "2"))
    encoded = encode_pairs(pairs, TOKENIZER, 4, 4)
    assert encoded.prompt.tolist() == [[0xC3, 0xB1, PAD, PAD], [*b"abcd"]]
    assert encoded.prompt_length.tolist() == [2, 4]
    assert encoded.target.tolist() == [[*b"xyz", EOS], [*b"x", EOS, PAD, PAD]]
    assert encoded.target_length.tolist() == [4, 2]
    assert all(array.dtype == np.int32 for array in encoded.batch(np.arange(2)).values())


def test_pairs_that_are_too_long(caplog):
    pairs = Pairs(("a", "abcde", "b"), ("x", "x", "wxyz"), ("f:1", "f:2", "f:3"))
    message = r"2 of 3 pairs are longer than 4 tokens of prompt \+ 4 of target: f:2 \(5 \+ 2\), f:3"
    with pytest.raises(DataError, match=message):
        encode_pairs(pairs, TOKENIZER, 4, 4)
    kept = encode_pairs(pairs, TOKENIZER, 4, 4, too_long="drop")
    assert len(kept) == 1
    assert kept.prompt[0, 0] == ord("a")
    assert "2 of 3 pairs are longer" in caplog.text
    with pytest.raises(DataError, match="3 of 3 pairs are longer"):
        encode_pairs(pairs, TOKENIZER, 4, 1, too_long="drop")


def test_an_epoch_draws_every_pair_once_in_a_new_order():
    pairs = _pairs(10)
    source = PairBatches(pairs, TOKENIZER, 2, 4, batch_size=4, seed=0)
    batches = [source[i] for i in range(25)]
    drawn = np.concatenate([b["prompt"][:, 0] for b in batches]).reshape(10, 10)
    for epoch in drawn:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(10) + ord("0"))
    assert len({tuple(epoch) for epoch in drawn}) > 5
    for batch in batches:  # prompt and target stay together
        np.testing.assert_array_equal(batch["target_length"], 2 + (batch["prompt"][:, 0] - 48) % 3)


def test_parts_make_the_whole_and_positions_are_kept():
    whole = PairBatches(_pairs(7), TOKENIZER, 2, 4, batch_size=6, seed=1)
    parts = [PairBatches(_pairs(7), TOKENIZER, 2, 4, 6, 1, process, 2) for process in range(2)]
    iterator = batch_iterator(whole)
    for i in range(4):
        batch = next(iterator)
        assert list(batch) == ["prompt", "prompt_length", "target", "target_length"]
        for name, rows in batch.items():
            together = np.concatenate([part[i][name] for part in parts])
            np.testing.assert_array_equal(rows, together)
    other = batch_iterator(whole)
    other.set_state(iterator.get_state())
    np.testing.assert_array_equal(next(other)["prompt"], whole[4]["prompt"])


def test_real_pairs(data):
    pairs = read_pairs(data / "instruct" / "xquad_es_train.tsv")
    assert len(pairs) == 992
    again = read_pairs(
        data / "instruct" / "xquad_es_train.jsonl", prompt_field="input", target_field="output"
    )
    assert again.targets == pairs.targets
    batch = PairBatches(pairs, TOKENIZER, 1024, 256, 16, 0, too_long="drop")[0]
    row = 3
    prompt = TOKENIZER.decode(batch["prompt"][row, : batch["prompt_length"][row]])
    target = TOKENIZER.decode(batch["target"][row])
    assert pairs.targets[pairs.prompts.index(prompt)] == target


def test_unknown_wishes_are_refused():
    with pytest.raises(ValueError, match="too_long is 'cut', expected refuse or drop"):
        encode_pairs(_pairs(1), TOKENIZER, 4, 4, too_long="cut")
    endless = ByteTokenizer()
    endless.eos_id = None
    with pytest.raises(ValueError, match="no EOS token for targets to end with"):
        encode_pairs(_pairs(1), endless, 4, 4)
