"""Documents from files and folders, and what is refused."""

import gzip
import json
import unicodedata

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.text.documents import Documents
from hrm_jax.data.text.reader import read_documents


def _texts(documents):
    return [documents.text(i) for i in range(len(documents))]


@pytest.fixture
def folder(tmp_path):
    """Four files of known kinds at different depths, one of another kind, and hidden ones."""
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "a.txt").write_text("uno\r\ndos\n\n \ntres\ncuatro", newline="")
    (tmp_path / "b" / "z.txt.gz").write_bytes(gzip.compress("ñandú\n".encode()))
    records = [{"text": "línea\nrota", "id": 1}, {"text": "😀", "other": "x"}, {"text": " "}]
    jsonl = "\n".join(map(json.dumps, records))
    (tmp_path / "b" / "c" / "r.jsonl").write_text(jsonl + "\n\n")
    (tmp_path / "b" / "c" / "s.jsonl.gz").write_bytes(gzip.compress(b'\xef\xbb\xbf{"text": "s"}'))
    (tmp_path / "notes.md").write_text("not text")
    (tmp_path / "b" / "._z.txt").write_bytes(b"\0\5\x16\7")  # as archives from a Mac have them
    (tmp_path / ".old").mkdir()
    (tmp_path / ".old" / "z.txt").write_text("old")
    return tmp_path


def test_a_folder_is_read_sorted_and_at_any_depth(folder):
    documents = read_documents(folder)
    assert _texts(documents) == [
        "uno\r\ndos\n\n \ntres\ncuatro", "línea\nrota", "😀", "s", "ñandú\n",
    ]  # fmt: skip
    r = f"{folder}/b/c/r.jsonl"
    assert documents.names == (
        f"{folder}/a.txt", f"{r}:1", f"{r}:2", f"{folder}/b/c/s.jsonl.gz:1", f"{folder}/b/z.txt.gz",
    )  # fmt: skip
    assert documents.tokens.dtype == np.uint8
    assert documents.boundaries.dtype == np.int64
    assert documents.tokens.tobytes() == "".join(_texts(documents)).encode()
    with pytest.raises(ValueError, match="read-only"):
        documents.tokens[0] = 0


@pytest.mark.parametrize(
    ("document", "texts", "lines"),
    [
        ("line", ["uno", "dos", "tres", "cuatro"], [1, 2, 5, 6]),
        ("blank_line", ["uno\r\ndos", "tres\ncuatro"], [1, 5]),
    ],
)
def test_documents_within_a_file(folder, document, texts, lines):
    path = folder / "a.txt"
    documents = read_documents(str(path), document=document)
    assert _texts(documents) == texts
    assert documents.names == tuple(f"{path}:{line}" for line in lines)


def test_patterns_and_repetitions(folder):
    documents = read_documents([folder / "b" / "**" / "*.jsonl", folder / "b" / "c" / "r.jsonl"])
    assert _texts(documents) == ["línea\nrota", "😀"]
    assert len(read_documents(f"{folder}/b/c/*")) == 3
    strange = folder / "[1].txt"  # a name is a name before it is a pattern
    strange.write_text("x")
    assert _texts(read_documents(strange)) == ["x"]


def test_another_json_field(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a", "body": "b"}')
    assert _texts(read_documents(tmp_path, json_field="body")) == ["b"]


def test_the_digest_counts_texts_and_boundaries():
    digests = {Documents.of(t).digest() for t in (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"])}
    assert len(digests) == 4
    assert Documents.of(["ñ", "b"], ["x", "y"]).digest() == Documents.of(["ñ", b"b"]).digest()


def test_selected_documents_keep_their_names():
    documents = Documents.of(["a", "bc", "d"], ["x", "y", "z"]).select([2, 1])
    assert (_texts(documents), documents.names) == (["d", "bc"], ("z", "y"))


def test_normalisation_is_off_by_default(tmp_path):
    apart = "man\u0303ana e\u0301"
    (tmp_path / "a.txt").write_text(apart)
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": apart}))
    assert _texts(read_documents(tmp_path)) == [apart, apart]
    assert _texts(read_documents(tmp_path, normalize=True)) == [
        unicodedata.normalize("NFC", apart)
    ] * 2  # fmt: skip


def test_invalid_bytes_are_counted_and_reported(tmp_path, caplog):
    a, b = tmp_path / "a.txt", tmp_path / "b.jsonl"
    a.write_bytes("bien \ufffd\n".encode() + b"mal \xff\xfe x\nbien\nma\xc3\nfin \xe2\x82")
    b.write_bytes(b'{"text": "\xf1"}\n{"text": "\\ud83d!"}')
    documents = read_documents(tmp_path)
    text = "bien \ufffd\nmal \ufffd\ufffd x\nbien\nma\ufffd\nfin \ufffd"
    assert _texts(documents) == [text, "\ufffd", "\ufffd!"]
    assert f"{2 + 1 + 2 + 1 + 1} bytes on 5 lines are not UTF-8" in caplog.text
    assert f"the first at {a}:2, {a}:4, {a}:5, {b}:1, {b}:2" in caplog.text


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"ok\nma\xc3\xb1 \xc3(", "a.txt", r"a\.txt:2: invalid UTF-8: .* at byte 6"),
        (b'{"text": "\\udc00"}', "a.jsonl", r"a\.jsonl:1: invalid UTF-8: text has a lone surrog"),
    ],
)
def test_strict_reading_refuses_invalid_bytes(tmp_path, data, name, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_documents(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.txt", b"", r"empty\.txt: there is no text in it"),
        ("blank.txt", b"\xef\xbb\xbf \n\n", r"blank\.txt: there is no text in it"),
        ("empty.jsonl", b'\n{"text": ""}\n', r"empty\.jsonl: there is no text in it"),
        (
            "cut.txt.gz",
            gzip.compress(b"abc\n" * 9999, mtime=0)[:-20],
            r"cut\.txt\.gz: cannot be read, aft",
        ),
        ("no.txt.gz", b"plain text", r"no\.txt\.gz: cannot be read, after line 0"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": ', r"bad\.jsonl:2: expected one JSON object a l"),
        ("deep.jsonl", b'{"text": "a"}\n' + b"[" * 100_000, r"deep\.jsonl:2: expected one JSON"),
        ("list.jsonl", b"[1]", r"list\.jsonl:1: expected a JSON object, found list"),
        ("field.jsonl", b'{"txt": "a"}', r"field\.jsonl:1: there is no field 'text'; .* txt"),
        ("type.jsonl", b'\n{"text": 3}', r"type\.jsonl:2: text is of type int, expected a str"),
        ("x.pdf", b"%PDF", r"x\.pdf: unknown kind of file; expected \.txt, \.txt\.gz, \.jsonl"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_documents(tmp_path / name)


def test_a_packed_file_has_a_limit(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(bytes(70 << 20), 1))  # one line of 70 MiB in 300 kB
    with pytest.raises(DataError, match=r"gz:1: unpacks to more than is allowed; .*max_unpacked"):
        read_documents(path)
    path.write_bytes(gzip.compress(b"abc\n" * 8))
    with pytest.raises(DataError, match=r"gz:3: unpacks"):
        read_documents(path, max_unpacked=9)
    assert len(read_documents(path, max_unpacked=32).tokens) == 32


def test_nothing_to_read_is_named(tmp_path):
    for paths, message in (
        ([], "no text files are named"),
        (tmp_path, "there are no text files in the folder; expected .txt"),
        (tmp_path / "x.txt", r"x\.txt: no such file"),
        (tmp_path / "*.txt", r"\*\.txt: no file fits the pattern"),
    ):
        with pytest.raises(DataError, match=message):
            read_documents(paths)
    with pytest.raises(ValueError, match="document is 'page', expected file, line or blank_line"):
        read_documents(tmp_path, document="page")
    with pytest.raises(DataError, match="1: the document is empty"):
        Documents.of(["a", ""])
    with pytest.raises(DataError, match="there are no documents"):
        Documents.of([])
    with pytest.raises(IndexError, match="document 2 of 2"):
        Documents.of(["a", "b"])[2]


def test_pretty_printed_json_is_refused_by_name(data):
    folder = data / "branches" / "antropologia_corpus"
    for path in sorted(folder.glob("*.jsonl")):
        with pytest.raises(DataError, match=rf"{path.name}:1: expected one JSON object a line"):
            read_documents(path)


def test_real_files(data, caplog):
    train = read_documents(data / "spanish" / "es_train.txt.gz")
    assert (len(train), len(train.tokens)) == (1, 27_241_830)
    assert not caplog.text
    questions = read_documents(data / "instruct" / "xquad_es_test.jsonl", json_field="instruction")
    assert len(questions) == 198
    paragraphs = read_documents(data / "spanish" / "es_valid.txt", document="line")
    raw = (data / "spanish" / "es_valid.txt").read_text(encoding="utf-8")
    assert _texts(paragraphs) == [line for line in raw.split("\n") if line.strip()]
