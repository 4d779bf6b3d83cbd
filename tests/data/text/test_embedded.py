"""The Spanish prose that ships along, and what its README claims."""

import csv
import gzip
import re
import unicodedata
from importlib import resources

import pytest

from hrm_jax.data.text.embedded import HELD_OUT, TRAIN, spanish_documents

FOLDER = resources.files("hrm_jax.data.text") / "spanish"


@pytest.fixture(scope="module")
def works():
    """Text of each work by its file's name."""
    return {d.names[i]: d[i] for d in spanish_documents() for i in range(len(d))}


@pytest.fixture(scope="module")
def rows():
    """The README's table by file name: author, work, bytes, source, licence."""
    table = re.findall(
        r"^\| `(\w+)\.txt\.xz` \| (.*) \|$", (FOLDER / "README.md").read_text(), re.M
    )
    return {name: row.split(" | ") for name, row in table}


def test_size_and_parts(works):
    train, held_out = spanish_documents()
    assert train.names == TRAIN
    assert held_out.names == HELD_OUT
    assert 4_000_000 < len(train.tokens) + len(held_out.tokens) < 5_000_000
    packed = [f for f in FOLDER.iterdir() if f.name.endswith(".xz")]
    assert {f.name for f in packed} == {f"{name}.txt.xz" for name in works}
    assert sum(len(f.read_bytes()) for f in packed) <= 1_500_000
    for work in works.values():
        text = work.decode()
        assert unicodedata.is_normalized("NFC", text)
        assert not re.search(r"[<>\ufffd\r]|gutenberg", text, re.I)
    assert works["cervantes_quijote"].decode().count("Sancho") > 2000


def test_every_work_is_listed_with_its_size_and_licence(works, rows):
    assert rows.keys() == works.keys()
    for name, (author, title, size, source, licence) in rows.items():
        assert author
        assert title
        assert int(size.replace(",", "")) == len(works[name])
        assert "public domain" in licence.lower()
        assert "https://github.com/" in source


def test_the_works_are_what_the_manifest_says(works, rows, data):
    with open(data / "spanish" / "MANIFEST.csv", encoding="utf-8", newline="") as file:
        manifest = {row["source"].split()[-1]: row for row in csv.DictReader(file)}
    with gzip.open(data / "spanish" / "es_train.txt.gz") as file:
        train = file.read()
    for name, (_, title, _, source, _) in rows.items():
        row = manifest[re.search(r"`([\w./-]+)`$", source)[1]]
        assert row["split"] == "train"
        assert row["licence"].lower().startswith("public domain")
        assert row["title"][:12] == title[:12]
        assert int(row["utf8_bytes"]) == len(works[name])
        assert works[name] in train


def test_nothing_of_the_test_texts_is_in_it(works, data):
    text = "\n".join(work.decode() for work in works.values())
    paragraphs = [
        line
        for name in ("es_test.txt", "es_valid.txt")
        for line in (data / "spanish" / name).read_text(encoding="utf-8").split("\n")
        if len(line) > 200
    ]
    assert len(paragraphs) > 1000
    # 32 characters from every 32nd place on: one such piece begins in the first 32 characters of
    # any longer paragraph that is in the text.
    pieces = {text[i : i + 32] for i in range(0, len(text), 32)}

    def copied(line):
        return any(line[i : i + 32] in pieces for i in range(32)) and line in text

    assert not [line for line in paragraphs if copied(line)]
    assert all(copied(line) for line in text.split("\n") if len(line) > 2000)
