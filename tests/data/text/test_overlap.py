"""What is said of held-out text that is in the training text too."""

import pytest

from hrm_jax.data.text.documents import Documents
from hrm_jax.data.text.embedded import spanish_documents
from hrm_jax.data.text.overlap import report_shared_documents, report_shared_pairs
from hrm_jax.data.text.pairs import Pairs

LINES = [f"a line of its own, with the number {i}, that is long enough" for i in range(8)]


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (["a", "b"], ["c", "b\n"], "1 of 2 held-out documents and 0 of their 0 lines of 40"),
        (
            ["\n".join(LINES)],
            ["\n".join(LINES)],
            "1 of 1 held-out documents and 8 of their 8 lines",
        ),
        (
            ["\n".join(LINES)],
            ["x\n" + LINES[2]],
            "0 of 1 held-out documents and 1 of their 1 lines",
        ),
        (["\n".join(LINES[:4])], ["\n".join(LINES[4:])], ""),
        (["a\nshort line"], ["b\nshort line"], ""),
    ],
)
def test_documents(caplog, train, test, said):
    report_shared_documents(Documents.of(train), Documents.of(test))
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def test_novels_are_apart(caplog):
    report_shared_documents(*spanish_documents())
    assert not caplog.text


def test_pairs(caplog):
    train = Pairs(("a", "b"), ("1", "2"), ("t:1", "t:2"))
    report_shared_pairs(train, Pairs(("a", "c"), ("2", "2"), ("h:1", "h:2")))
    assert not caplog.text
    report_shared_pairs(train, Pairs(("c", " b"), ("2", "2 "), ("h:1", "h:2")))
    assert "1 of 2 held-out pairs are among the training pairs too" in caplog.text
    assert "the first is h:2, as t:2" in caplog.text
