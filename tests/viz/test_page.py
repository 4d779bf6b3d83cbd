"""What the page is made of: its data, its looks, its escaping, its policy."""

import base64
import dataclasses
import hashlib
import html
import importlib.resources
import json
import re
import zlib

import numpy as np
import pytest

from hrm_jax.data.npy_folder import PuzzleSet
from hrm_jax.viz.page import KINDS, Steps, payload, render_page, write_page

HOSTILE = "</script><script>alert(1)</script><!-- {{data}} & \u2028 \"'"


def _puzzles(count=5, **fields):
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 6, (count, 16)).astype(np.uint8)
    questions = np.where(rng.random((count, 16)) < 0.5, 1, tokens)
    return PuzzleSet.simple(questions, tokens, vocab_size=6, ignore_label_id=0, **fields)


def _named(puzzles, identifiers, names):
    metadata = dataclasses.replace(puzzles.metadata, num_puzzle_identifiers=names)
    return dataclasses.replace(puzzles, puzzle_identifiers=np.int32(identifiers), metadata=metadata)


def _steps(puzzles, steps=3):
    boards = np.repeat(puzzles.labels[:, None], steps, axis=1)
    count = len(puzzles)
    q_halt = np.linspace(-1, 1, count * steps).reshape(count, steps)
    stops = np.full(count, steps)
    return Steps(boards, np.full(boards.shape, 200, np.uint8), q_halt, stops, stops > 2)


def _contents(page, element):
    """What stands in the elements of a name, each up to the first end that a browser would see."""
    return re.findall(rf"<{element}\b[^>]*>(.*?)</{element}", page, re.DOTALL | re.IGNORECASE)


def _unpack(packed):
    raw = zlib.decompress(base64.b64decode(packed["data"]))
    return np.frombuffer(raw, "<" + packed["dtype"]).reshape(packed["shape"])


def test_the_payload_holds_the_arrays():
    puzzles = _puzzles(ratings=[1, 2.5, 3, 4, 5])
    steps = _steps(puzzles)
    data = payload(puzzles, steps, num=4, title="A title")
    assert (data["look"]["boxes"], data["count"], data["total"], data["ignore"]) == (
        (2, 2),
        4,
        5,
        0,
    )
    arrays = {name: _unpack(packed) for name, packed in data["arrays"].items()}
    np.testing.assert_array_equal(arrays["inputs"], puzzles.inputs[:4])
    np.testing.assert_array_equal(arrays["boards"], steps.boards[:4])
    np.testing.assert_array_equal(arrays["q_halt"], np.float32(steps.q_halt[:4]))
    np.testing.assert_array_equal(arrays["ratings"], np.float32([1, 2.5, 3, 4]))
    assert (arrays["stops"].tolist(), arrays["solved"].tolist()) == ([3] * 4, [1] * 4)
    assert "names" not in arrays


def test_names_are_those_of_the_examples():
    puzzles, names = _named(_puzzles(3), [7, 2, 7], 9), [f"task {k}" for k in range(9)]
    data = payload(puzzles, names=names)
    assert data["names"] == ["task 2", "task 7"]
    assert _unpack(data["arrays"]["names"]).tolist() == [1, 0, 1]
    assert payload(puzzles, names=names[:3])["names"] == []  # they do not reach so far


def test_labels_that_fit_no_byte():
    puzzles = PuzzleSet.simple(
        np.array([[300, 1]]), np.array([[-100, 2]]), vocab_size=400, ignore_label_id=-100
    )
    data = payload(puzzles)
    assert data["look"]["kind"] == "tokens"
    assert _unpack(data["arrays"]["inputs"]).tolist() == [[300, 1]]
    assert _unpack(data["arrays"]["labels"]).tolist() == [[-100, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boards": np.zeros((5, 3))}, r"boards has shape \(5, 3\), expected"),
        ({"q_halt": np.zeros((5, 2))}, r"q_halt has shape \(5, 2\), expected \(5, 3\)"),
        ({"solved": np.ones(4, bool)}, r"solved has shape \(4,\), expected \(5,\)"),
        ({"stops": np.zeros(5, np.int32)}, "stops: expected steps 1 to 3"),
    ],
)
def test_steps_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(_steps(_puzzles()), **change)


def test_what_cannot_be_shown():
    puzzles, other = _puzzles(), PuzzleSet.simple(*np.ones((2, 5, 9), int), 6, 0)
    boards = np.broadcast_to(np.uint8(1), (5, 10_000_000, 16))
    q_halt = np.broadcast_to(np.float32(0), boards.shape[:2])
    vast = Steps(boards, boards, q_halt, np.ones(5, np.int32))
    for message, arguments, options in (
        ("expected 1 to 10000 puzzles on a page, got 0", (puzzles,), {"num": 0}),
        ("more than a browser shows well", (puzzles, vast), {}),
        (r"boards has shape \(5, 3, 9\), expected \(…, 16\)", (puzzles, _steps(other)), {}),
        ("kind is 'chess', expected one of sudoku, maze, ", (puzzles,), {"kind": "chess"}),
        ("a domino position has 72 tokens, not 16", (puzzles,), {"kind": "domino"}),
    ):
        with pytest.raises(ValueError, match=message):
            payload(*arguments, **options)


def test_an_empty_page_knows_all_puzzles():
    stored = json.loads(_contents(render_page(None), "script")[0])
    assert stored["page"] is None
    looks = stored["looks"]
    assert {look["kind"] for look in looks} == set(KINDS)
    sizes = [(look["kind"], look.get("seq_len", 0), look.get("vocab_size")) for look in looks]
    own = [("sudoku", 16, 6), ("sudoku", 36, 8), ("sudoku", 81, 11), ("domino", 72, 8)]
    own += [("latin", size * size, size + 2) for size in range(4, 10)]
    assert sizes == [*own, ("maze", None, 6), ("arc", None, 12), ("tokens", 0, None)]
    assert looks[1]["boxes"] == [2, 3]


def test_no_text_breaks_out_of_its_element():
    data = payload(_named(_puzzles(1), [0], 2), title=HOSTILE, names=[HOSTILE, "other"])
    page = render_page(data)
    stored, _ = _contents(page, "script")
    assert f'<script type="application/json" id="data">{stored}</script>' in page
    assert not re.search("[<>&]", stored)
    assert json.loads(stored)["page"] == json.loads(json.dumps(data))
    assert data["names"] == [HOSTILE]
    assert _contents(page, "title") == [html.escape(HOSTILE)]


def test_the_policy_allows_the_pages_own_script_and_nothing_else():
    page = render_page(None)
    (content,) = re.findall('<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    policy = dict(part.split(" ", 1) for part in content.split("; "))
    assert policy["default-src"] == "'none'"  # connect, img, frame, worker, font … follow it
    for element in ("script", "style"):
        body = _contents(page, element)[-1]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert policy[f"{element}-src"] == f"'sha256-{digest}'"
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r"<[^>]*\s(src|href|style|action|on\w+)\s*=", markup)


def test_text_is_never_set_as_html_and_no_puzzle_is_named():
    source = importlib.resources.files("hrm_jax.viz").joinpath("page.html").read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|fetch\(|https?:",
        source,
    )
    assert not re.search(rf"\b({'|'.join(set(KINDS) - {'tokens'})})\b", source, re.IGNORECASE)


def test_a_failed_write_leaves_the_page_before(tmp_path):
    path = write_page(tmp_path / "view.html", _puzzles())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="got 0"):
        write_page(path, _puzzles(), num=0)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
