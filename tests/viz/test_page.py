"""What the page is made of: its data, its escaping, its policy; and the script that writes it."""

import base64
import dataclasses
import hashlib
import importlib.resources
import importlib.util
import json
import pathlib
import re
import zlib
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import pytest

import hrm_jax
from hrm_jax.data.errors import DataError
from hrm_jax.data.npy_folder import PuzzleSet, read_npy, write_npy
from hrm_jax.trained.browse import examples, loss_of_run, trace_puzzles
from hrm_jax.viz.page import Steps, guess_kind, payload, render_page, write_page

HOSTILE = "</script><script>alert(1)</script><!-- {{data}} & \u2028 \"'"


def _puzzles(count=5, rng=None, **fields):
    rng = rng or np.random.default_rng(0)
    tokens = rng.integers(2, 6, (count, 16)).astype(np.uint8)
    questions = np.where(rng.random((count, 16)) < 0.5, 1, tokens)
    return PuzzleSet.simple(questions, tokens, vocab_size=6, ignore_label_id=0, **fields)


def _steps(puzzles, steps=3):
    boards = np.repeat(puzzles.labels[:, None], steps, axis=1)
    count = len(puzzles)
    return Steps(
        boards,
        np.full(boards.shape, 200, np.uint8),
        np.linspace(-1, 1, count * steps).reshape(count, steps).astype(np.float32),
        np.full(count, steps, np.int32),
    )


class _Elements(HTMLParser):
    """The elements of a page with their attributes and text, as a browser would see them."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])
        self.inside = True

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.found[-1][2] += data

    def of(self, tag):
        return [element for element in self.found if element[0] == tag]


def _unpack(packed):
    raw = zlib.decompress(base64.b64decode(packed["data"]))
    return np.frombuffer(raw, "<" + packed["dtype"]).reshape(packed["shape"])


@pytest.mark.parametrize(
    ("seq_len", "vocab_size", "kind"),
    [
        (16, 6, "sudoku"),
        (36, 8, "sudoku"),
        (81, 11, "sudoku"),
        (900, 6, "maze"),
        (900, 12, "arc"),
        (72, 8, "domino"),
        (100, 40, "tokens"),
        (17, 6, "tokens"),
    ],
)
def test_the_kind_is_guessed(seq_len, vocab_size, kind):
    assert guess_kind(seq_len, vocab_size) == kind


def test_the_payload_holds_the_arrays():
    puzzles = _puzzles(ratings=[1, 2.5, 3, 4, 5])
    steps = _steps(puzzles)
    data = payload(puzzles, steps, num=4, title="A title")
    assert (data["kind"], data["count"], data["total"], data["ignore"]) == ("sudoku", 4, 5, 0)
    arrays = {name: _unpack(packed) for name, packed in data["arrays"].items()}
    np.testing.assert_array_equal(arrays["inputs"], puzzles.inputs[:4])
    np.testing.assert_array_equal(arrays["boards"], steps.boards[:4])
    np.testing.assert_array_equal(arrays["q_halt"], steps.q_halt[:4])
    np.testing.assert_array_equal(arrays["ratings"], np.float32([1, 2.5, 3, 4]))
    assert arrays["stops"].tolist() == [3] * 4
    assert "names" not in arrays


def test_names_are_those_of_the_examples():
    puzzles = dataclasses.replace(
        _puzzles(3),
        puzzle_identifiers=np.int32([7, 2, 7]),
        metadata=dataclasses.replace(_puzzles(3).metadata, num_puzzle_identifiers=9),
    )
    names = [f"task {k}" for k in range(9)]
    data = payload(puzzles, names=names)
    assert data["names"] == ["task 2", "task 7"]
    assert _unpack(data["arrays"]["names"]).tolist() == [1, 0, 1]
    assert payload(puzzles, names=names[:3])["names"] == []  # they do not reach so far


def test_labels_that_fit_no_byte():
    puzzles = PuzzleSet.simple(
        np.array([[300, 1]]), np.array([[-100, 2]]), vocab_size=400, ignore_label_id=-100
    )
    data = payload(puzzles)
    assert data["kind"] == "tokens"
    assert _unpack(data["arrays"]["inputs"]).tolist() == [[300, 1]]
    assert _unpack(data["arrays"]["labels"]).tolist() == [[-100, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boards": np.zeros((5, 3, 9))}, r"boards has shape \(5, 3, 9\), expected"),
        ({"q_halt": np.zeros((5, 2))}, r"q_halt has shape \(5, 2\), expected \(5, 3\)"),
        ({"stops": np.zeros(5, np.int32)}, "stops: expected steps 1 to 3"),
    ],
)
def test_steps_that_do_not_fit(change, message):
    puzzles = _puzzles()
    with pytest.raises(ValueError, match=message):
        payload(puzzles, dataclasses.replace(_steps(puzzles), **change))


def test_too_much_to_show():
    puzzles = _puzzles()
    with pytest.raises(ValueError, match="expected 1 to 10000 puzzles on a page, got 0"):
        payload(puzzles, num=0)
    boards = np.broadcast_to(np.uint8(1), (5, 10_000_000, 16))
    vast = Steps(boards, boards, np.zeros((5, 10_000_000)), np.ones(5, np.int32))
    with pytest.raises(ValueError, match="more than a browser shows well"):
        payload(puzzles, vast)


def test_no_text_breaks_out_of_its_element():
    puzzles = dataclasses.replace(
        _puzzles(1), metadata=dataclasses.replace(_puzzles(1).metadata, num_puzzle_identifiers=2)
    )
    data = payload(puzzles, title=HOSTILE, names=[HOSTILE, "other"])
    page = render_page(data)
    elements = _Elements(page)
    assert len(elements.of("script")) == len(_Elements(render_page(None)).of("script")) == 2
    stored, _ = elements.of("script")
    assert stored[1] == {"type": "application/json", "id": "data"}
    assert not re.search("[<>&]", stored[2])
    assert json.loads(stored[2]) == json.loads(json.dumps(data))
    assert json.loads(stored[2])["names"] == [HOSTILE]
    assert elements.of("title")[0][2] == HOSTILE


def test_the_policy_allows_the_pages_own_script_and_nothing_else():
    elements = _Elements(render_page(None))
    (meta,) = [e for e in elements.of("meta") if e[1].get("http-equiv")]
    policy = dict(part.split(" ", 1) for part in meta[1]["content"].split("; "))
    assert policy["default-src"] == "'none'"  # connect, img, frame, worker, font … follow it
    for name, (_, _, body) in (
        ("script", elements.of("script")[1]),
        ("style", elements.of("style")[0]),
    ):
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert policy[f"{name}-src"] == f"'sha256-{digest}'"
    for _, attributes, _ in elements.found:
        assert not {"src", "href", "style", "action"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]


def test_text_is_never_set_as_html():
    source = importlib.resources.files("hrm_jax.viz").joinpath("page.html").read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|fetch\(|https?:",
        source,
    )


def test_a_failed_write_leaves_the_page_before(tmp_path):
    path = write_page(tmp_path / "view.html", _puzzles())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="got 0"):
        write_page(path, _puzzles(), num=0)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- the model's steps ----------------------------------------------------------------------------


@pytest.mark.parametrize("halting", ["q", "fixed"])
def test_the_trace_is_that_of_solve(halting, trained):
    model = hrm_jax.load(trained)
    puzzles = read_npy(trained / "data", "test")
    traces = trace_puzzles(
        model.config, model.variables, puzzles.inputs, puzzles.example_identifiers(),
        max_steps=5, halting=halting, rows=3,
    )  # fmt: skip
    assert traces.boards.shape == traces.confidence.shape == (8, 5, 16)
    solved = model.solve_tokens(puzzles.inputs, max_steps=5, halting=halting, trace=True)
    for row, solution in enumerate(solved):
        assert traces.stops[row] == solution.steps
        np.testing.assert_array_equal(traces.boards[row, : solution.steps], solution.trace)
        np.testing.assert_allclose(
            traces.q_halt[row, solution.steps - 1], solution.q_halt, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_the_confidence_is_the_probability_that_was_trained(loss, trained):
    model = hrm_jax.load(trained)
    inputs = read_npy(trained / "data", "test").inputs[:4]
    batch = {
        "inputs": jnp.asarray(inputs, jnp.int32),
        "puzzle_identifiers": jnp.zeros(4, jnp.int32),
    }
    _, out = model.act_step(model.initial_carry(batch), batch)
    x = np.asarray(out.logits, np.float64)
    s = np.exp(x) if loss == "softmax" else np.where(x >= 0, x + 1, 1 / (1 - np.minimum(x, 0)))
    traces = trace_puzzles(
        model.config, model.variables, inputs, np.zeros(4, int), max_steps=1, loss=loss
    )
    expected = 255 * (s / s.sum(-1, keepdims=True)).max(-1)
    np.testing.assert_allclose(traces.confidence[:, 0], expected, atol=0.6)
    assert loss_of_run(trained) == "stablemax"


def test_trace_errors(trained):
    model = hrm_jax.load(trained)
    for change, message in (({"max_steps": 0}, "max_steps"), ({"rows": 0}, "rows")):
        with pytest.raises(ValueError, match=f"{message}: expected at least 1"):
            trace_puzzles(model.config, model.variables, np.ones((1, 16), int), np.zeros(1, int),
                          **{"max_steps": 1, **change})  # fmt: skip
    with pytest.raises(ValueError, match="puzzles: expected at least 1"):
        trace_puzzles(model.config, {}, np.ones((0, 16), int), np.zeros(0, int), max_steps=1)


def test_examples(trained, tmp_path):
    assert len(examples(trained, None, "train")[0]) == 16
    assert len(examples(trained, None)[0]) == 8
    write_npy(tmp_path, "test", _puzzles(), ["<blank>"])
    puzzles, names = examples(None, tmp_path)
    assert (len(puzzles), names) == (5, [])
    (tmp_path / "identifiers.json").write_text('["<blank>", "a"]')
    assert examples(None, tmp_path)[1] == ["<blank>", "a"]
    for content, message in (("{", "not valid JSON"), ("[1]", "expected a list of names")):
        (tmp_path / "identifiers.json").write_text(content)
        with pytest.raises(DataError, match=rf"identifiers\.json: {message}"):
            examples(None, tmp_path)
    with pytest.raises(DataError, match="no such file"):
        examples(None, tmp_path / "none")
    with pytest.raises(DataError, match="give a data set"):
        examples(None, None)


# --- the script -----------------------------------------------------------------------------------


@pytest.fixture
def view(capsys):
    """Runs launch/view.py in this process: (exit code, stdout, stderr)."""
    path = pathlib.Path(__file__).parents[2] / "launch" / "view.py"
    spec = importlib.util.spec_from_file_location("launch_view", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*argv):
        capsys.readouterr()
        return module.main([str(x) for x in argv]), *capsys.readouterr()

    return call


def _stored(path):
    return json.loads(_Elements(path.read_text(encoding="utf-8")).of("script")[0][2])


def test_view_of_a_run(view, trained, tmp_path):
    output = tmp_path / "view.html"
    code, out, _ = view("--workdir", trained, "--num=3", "--max_steps=4", "--output", output)
    assert code == 0
    assert out.splitlines() == [str(output), f"Open it in a browser: {output.as_uri()}"]
    data = _stored(output)
    assert _unpack(data["arrays"]["boards"]).shape == (3, 4, 16)
    assert (data["kind"], data["total"]) == ("sudoku", 8)


def test_view_of_a_data_set(view, trained, tmp_path):
    output = tmp_path / "view.html"
    code, _, _ = view("--dataset", trained / "data", "--split=train", "--kind=tokens",
                      "--title", HOSTILE, "--output", output)  # fmt: skip
    data = _stored(output)
    assert (code, data["count"], data["kind"]) == (0, 16, "tokens")
    assert data["title"] == HOSTILE
    assert "boards" not in data["arrays"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --workdir .* or both"),
        (["--workdir=none"], "none: not the workdir of a run"),
        (["--dataset=none"], "none: no such file or folder"),
        (["--dataset=DATA", "--num=0"], "--num: expected at least 1, got 0"),
        (["--dataset=DATA", "--output=FOLDER"], "is a folder; expected the name"),
        (["--workdir=RUN", "--dataset=OTHER"], "36 tokens of a vocabulary of 8, but the model"),
        (["--workdir=RUN", "--max_steps=0"], "--max_steps: expected at least 1"),
        (["--workdir=RUN", "--checkpoint=9"], "no checkpoint 9; there are: 2, 4"),
        (["--dataset=EMPTY"], r"dataset\.json: there is no such file"),
    ],
)
def test_view_errors(flags, message, view, trained, tmp_path):
    other = PuzzleSet.simple(np.ones((1, 36), int), np.ones((1, 36), int), 8, 0)
    write_npy(tmp_path / "other", "test", other)
    (tmp_path / "empty").mkdir()
    names = {"DATA": trained / "data", "RUN": trained, "OTHER": tmp_path / "other",
             "FOLDER": tmp_path, "EMPTY": tmp_path / "empty"}  # fmt: skip
    flags = [re.sub("[A-Z]{3,}", lambda match: str(names[match[0]]), flag) for flag in flags]
    if not any(flag.startswith("--output") for flag in flags):
        flags.append(f"--output={tmp_path / 'view.html'}")
    code, out, err = view(*flags)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert not (tmp_path / "view.html").exists()


def test_an_identifier_the_model_does_not_know(view, trained, tmp_path):
    puzzles = dataclasses.replace(
        _puzzles(1),
        puzzle_identifiers=np.int32([5]),
        metadata=dataclasses.replace(_puzzles(1).metadata, num_puzzle_identifiers=6),
    )
    write_npy(tmp_path, "test", puzzles)
    code, _, err = view("--workdir", trained, "--dataset", tmp_path)
    assert code == 2
    assert "puzzle identifier 5 is not one of the 1 that the model knows" in err


def test_the_package_ships_the_template():
    assert importlib.resources.files("hrm_jax.viz").joinpath("page.html").is_file()
