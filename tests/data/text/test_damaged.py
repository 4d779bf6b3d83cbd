"""Damaged files: whatever is in them, the error is ours and names the file."""

import gzip
import json
import random
import shutil

import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.text.pairs import read_pairs
from hrm_jax.data.text.reader import read_documents
from hrm_jax.data.text.tokenizers import load_tokenizer

TEXT = "".join(f"línea {i}\n\n" for i in range(20)).encode()
RECORDS = "".join(json.dumps({"text": f"{i} ñ", "n": [i, None]}) + "\n" for i in range(20)).encode()
PAIRS = "".join(f"{i}\tnúmero \\t {i}\n" for i in range(20)).encode()
JSON_PAIRS = b'{"prompt": "a", "target": "b"}\n' * 20
FILES = {
    "a.txt": (TEXT, read_documents),
    "a.txt.gz": (gzip.compress(TEXT), lambda path: read_documents(path, strict=True)),
    "a.jsonl": (RECORDS, read_documents),
    "a.jsonl.gz": (gzip.compress(RECORDS), read_documents),
    "a.tsv": (PAIRS, read_pairs),
    "a.tsv.gz": (gzip.compress(PAIRS), read_pairs),
    "b.jsonl": (JSON_PAIRS, read_pairs),
}
TRIALS = 24


def _damaged(data, draw):
    """Some bytes overwritten, cut, put in, doubled or nested."""
    data = bytearray(data)
    for _ in range(draw.randrange(1, 4)):
        at, length = draw.randrange(len(data)), draw.randrange(1, 9)
        new = draw.choice([
            draw.randbytes(length), b"[" * 20_000, b"\0", b"", b"9" * 5000, b"-1", b"null", b'"',
            b"\n\t", bytes(data[at : at + 99]),
        ])  # fmt: skip
        data[at : at + draw.choice([0, length, len(data) - at])] = new
        data = data or bytearray(b"x")
    return bytes(data)


def _refused(path, read):
    """Whether reading is refused, by an error that names the file."""
    try:
        read()
    except DataError as error:
        return str(path) in str(error) or pytest.fail(f"{path} is not named: {error}")
    return False


@pytest.mark.parametrize("name", FILES)
def test_texts(tmp_path, name):
    data, read = FILES[name]
    path, draw, refused = tmp_path / name, random.Random(name), 0
    for _ in range(TRIALS):
        path.write_bytes(_damaged(data, draw))
        refused += _refused(path, lambda: read(path))
    assert refused or name == "a.txt"  # all bytes are text


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    package = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("whole")
    inner = package.Tokenizer(package.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    inner.pre_tokenizer = package.pre_tokenizers.ByteLevel()
    inner.add_special_tokens(["<s>", "</s>"])
    inner.post_processor = package.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 3)]
    )
    inner.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": True}
    for name, values in (
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", settings),
        ("generation_config.json", {"eos_token_id": [4, 2]}),
    ):
        (folder / name).write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer.json", "tokenizer_config.json"),
        *("special_tokens_map.json", "generation_config.json"),
    ],
)
def test_tokenizers(whole, tmp_path, name):
    folder = tmp_path / "folder"
    shutil.copytree(whole, folder)
    draw, refused = random.Random(name), 0
    for _ in range(TRIALS):
        (folder / name).write_bytes(_damaged((whole / name).read_bytes(), draw))
        refused += _refused(folder, lambda: load_tokenizer(str(folder)).encode("ab <s> ba"))
    assert refused
