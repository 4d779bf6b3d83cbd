"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import base64
import contextlib
import dataclasses
import json
import pathlib

import numpy as np
import pytest

from hrm_jax.data.npy_folder import PuzzleSet, write_npy
from hrm_jax.puzzles import PUZZLES
from hrm_jax.puzzles.base import Puzzle, PuzzleData
from hrm_jax.puzzles.drawing.grid import GridPainter
from hrm_jax.puzzles.sudoku.board import SudokuShape, to_tokens
from hrm_jax.puzzles.sudoku.generator import generate
from hrm_jax.viz.page import Steps, render_page, write_page

pytestmark = pytest.mark.slow
GIVENS = {4: (6, 8), 6: (14, 20), 9: (30, 40)}
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


# --- puzzles with a made-up course of thought -----------------------------------------------------


def _steps(puzzles, steps, solved, rng):
    """A course in which more cells become right with each step; every `solved`-th row fails."""
    count, length = puzzles.inputs.shape
    labels, meta = puzzles.labels.astype(int), puzzles.metadata
    first = 2 if meta.vocab_size in (8, 11, 12) else 1
    noise = rng.integers(first, meta.vocab_size, (count, steps, length))
    learnt = rng.integers(0, max(2, steps - 1), (count, 1, length))
    right = np.arange(steps)[None, :, None] >= learnt
    right |= (puzzles.inputs == puzzles.labels)[:, None]
    blank = puzzles.inputs != puzzles.labels
    stubborn = blank & (rng.random((count, length)) < 0.06)
    stubborn[np.arange(count), blank.argmax(1)] = True  # one at least
    stubborn &= (np.arange(count) % solved == solved - 1)[:, None]
    right &= ~stubborn[:, None]
    noise = np.maximum.accumulate(np.where(rng.random(noise.shape) < 0.4, noise, first), axis=1)
    boards = np.where(right, labels[:, None], noise).astype(np.uint8)
    confidence = np.where(right, 255, rng.integers(70, 230, right.shape)).astype(np.uint8)
    q_halt = 8 * right.mean(2) - 6 + rng.normal(0, 0.2, right.shape[:2])
    stops = np.minimum(steps, np.argmax(np.c_[right.all(2), np.ones(count, bool)], axis=1) + 1)
    return Steps(boards, confidence, q_halt.astype(np.float32), stops.astype(np.int32))


def _sudoku(size, count, rng):
    shape = SudokuShape.of(size)
    made = generate(shape, count, GIVENS[size], seed=int(rng.integers(1000)))
    return PuzzleSet.simple(
        to_tokens(made.questions),
        to_tokens(made.answers),
        shape.vocab_size,
        0,
        np.arange(count) / 4,
    )


def _maze():
    rng = np.random.default_rng(4)
    grid = np.where(rng.random((4, 30, 30)) < 0.35, 1, 2)
    grid[:, 0, 0], grid[:, -1, -1] = 3, 4
    answer = grid.copy()
    answer[:, 0, 1:], answer[:, 1:-1, -1] = 5, 5
    question = np.where(answer == 5, 2, grid)
    return PuzzleSet.simple(question.reshape(4, -1), answer.reshape(4, -1), 6, 0)


def _arc():
    rng = np.random.default_rng(4)
    inputs, labels = np.zeros((2, 4, 30, 30), int)
    for row, (height, width) in enumerate([(10, 12), (6, 6), (3, 9), (20, 20)]):
        colours = rng.integers(0, 10, (height, width)) * (rng.random((height, width)) < 0.5)
        inputs[row, :height, :width] = colours + 2
        labels[row, :height, :width] = colours[::-1] + 2
        for grid in (inputs[row], labels[row]):
            grid[height, :width] = grid[:height, width] = 1
    puzzles = PuzzleSet.simple(inputs.reshape(4, -1), labels.reshape(4, -1), 12, 0)
    return dataclasses.replace(
        puzzles,
        puzzle_identifiers=np.int32([1, 2, 3, 4]),
        metadata=dataclasses.replace(puzzles.metadata, num_puzzle_identifiers=5),
    )


def _domino():
    question, answer = np.zeros((2, 72), int), np.zeros((2, 72), int)
    question[:, :6] = [4, 6, 6, 2, 2, 1]
    question[:, 56:64] = [7, 7, 1, 4, 3, 2, 5, 2]
    question[:, 70:] = [4, 1]
    answer[:, :3] = [4, 1, 1]
    answer[1, :3] = [7, 7, 3]
    return PuzzleSet.simple(question, answer, 8, 0)


# --- the browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(open_window):
    """Opens files in windows of their own; any error in the console or request fails the test."""

    @contextlib.contextmanager
    def window(path, size=DESKTOP, scheme="light", refused=False):
        with open_window(path.as_uri(), size, scheme) as (page, requests, messages):
            yield page
            assert set(requests) == {path.as_uri()}
            if refused:
                assert all("Content Security Policy" in message for message in messages)
            else:
                assert messages == []

    return window


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(4)


@pytest.fixture(scope="module")
def sudoku(tmp_path_factory, rng):
    """A page with 40 6×6 Sudokus and 8 steps of thought, every fifth unsolved."""
    puzzles = _sudoku(6, 40, rng)
    steps = _steps(puzzles, 8, 5, rng)
    path = tmp_path_factory.mktemp("page") / "view.html"
    write_page(path, puzzles, steps, title="runs/sudoku, test puzzles")
    return path, puzzles, steps


def _text(page, selector):
    return page.locator(selector).inner_text()


def _board(page, name):
    return [cell.strip() for cell in page.locator(f"#{name} .cell").all_inner_texts()]


def _digits(tokens):
    return [str(t - 1) if t > 1 else "" for t in tokens.tolist()]


def test_it_opens_and_steps(browser, sudoku):
    path, puzzles, steps = sudoku
    with browser(path) as page:
        assert _text(page, "h1") == "runs/sudoku, test puzzles"
        assert _text(page, "#subtitle") == "Sudoku 6×6 · 40 examples · 80.0% solved"
        assert _board(page, "question") == _digits(puzzles.inputs[0])
        assert _board(page, "answer") == _digits(puzzles.labels[0])
        stop = steps.stops[0]
        assert _text(page, "#where") == f"Step {stop} of 8"
        assert _board(page, "model") == _digits(steps.boards[0, stop - 1])
        page.keyboard.press("Home")
        assert _text(page, "#where") == "Step 1 of 8"
        assert page.locator("#model .changed").count() == 0
        page.keyboard.press("ArrowRight")
        assert _board(page, "model") == _digits(steps.boards[0, 1])
        changed = (steps.boards[0, 1] != steps.boards[0, 0]).sum()
        assert page.locator("#model .changed").count() == changed > 0
        wrong = (steps.boards[0, 1] != puzzles.labels[0]).sum()
        assert page.locator("#model .wrong").count() == wrong > 0
        q = steps.q_halt[0, 1]
        facts = page.locator("#facts dd").all_inner_texts()
        assert facts[0] == f"{36 - wrong} of 36"
        assert facts[3] == f"{q:+.2f}".replace("-", "−")
        assert facts[4] == f"{100 / (1 + np.exp(-float(q))):.1f}%"
        sure = page.locator("#model .unsure").count()
        assert sure == (steps.confidence[0, 1] / 255 < 0.99).sum() > 0
        page.locator("#bars .bar").nth(4).click()
        assert _text(page, "#where") == "Step 5 of 8"
        page.locator("#model .cell").nth(8).hover()
        assert _text(page, "#detail").startswith("Row 2, column 3 · question ")
        page.uncheck("#mark-changed")
        assert page.locator("#model .changed").count() == 0


def test_it_plays(browser, sudoku, expect):
    with browser(sudoku[0]) as page:
        page.keyboard.press("Home")
        page.keyboard.press("Space")
        assert _text(page, "#play") == "Pause"
        expect(page.locator("#where")).to_have_text("Step 3 of 8")
        page.keyboard.press("Space")
        assert _text(page, "#play") == "Play"
        page.locator("#bars .bar").nth(5).click()
        page.click("#play")
        expect(page.locator("#where")).to_have_text("Step 8 of 8")
        expect(page.locator("#play")).to_have_text("Play")


def test_moving_through_the_examples(browser, sudoku):
    with browser(sudoku[0]) as page:
        page.keyboard.press("j")
        page.keyboard.press("ArrowDown")
        assert _text(page, "#name") == "Example 3"
        page.keyboard.press("k")
        assert _text(page, "#name") == "Example 2"
        assert page.get_attribute(".row[aria-selected=true]", "id") == "example-1"
        assert page.get_attribute("#list", "aria-activedescendant") == "example-1"
        page.click("#example-6")
        assert _text(page, "#name") == "Example 7"
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("t")
        assert page.get_attribute("html", "data-theme") == "dark"
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.get_attribute("html", "data-theme") == "dark"
        page.click("#theme")
        page.evaluate("localStorage.clear()")
        assert page.get_attribute("html", "data-theme") == "light"


def test_filters(browser, sudoku):
    path, puzzles, _ = sudoku
    with browser(path) as page:
        rows = page.locator(".row")
        page.check("[value=unsolved]", force=True)
        assert _text(page, "#shown") == "8 of 40 examples"
        assert rows.count() == 8
        assert _text(page, "#name") == "Example 5"
        page.check("[value=solved]", force=True)
        assert _text(page, "#shown") == "32 of 40 examples"
        page.check("[value=all]", force=True)
        middle = float(np.median(puzzles.ratings))
        page.fill("#most", str(middle))
        below = int((puzzles.ratings <= middle).sum())
        assert _text(page, "#shown") == f"{below} of 40 examples"
        page.fill("#most", "")
        page.fill("#text", "#12")
        assert _text(page, "#name") == "Example 12"
        assert rows.count() == 1
        board = "".join(str(t - 1) if t > 1 else "." for t in puzzles.inputs[20].tolist())
        page.fill("#text", board[4:30])
        assert _text(page, "#name") == "Example 21"
        page.fill("#text", "<no such>")
        assert page.locator("#empty").is_visible()
        assert rows.count() == 0
        page.fill("#text", "")
        assert _text(page, "#shown") == "40 examples"
        assert page.locator("#view").is_visible()


def test_a_folder_is_opened(browser, sudoku, tmp_path, rng, expect):
    four, arc = _sudoku(4, 6, rng), _arc()
    four = dataclasses.replace(  # as other programs write it: int64
        four, inputs=four.inputs.astype(np.int64), labels=four.labels.astype(np.int32)
    )
    write_npy(tmp_path / "four", "train", four)
    write_npy(tmp_path / "four", "test", four)
    write_npy(tmp_path / "arc", "test", arc, ["<blank>", "<b>one</b>", "two", "three", "four"])
    with browser(sudoku[0]) as page:
        page.set_input_files("#folder", tmp_path / "four")
        expect(page.locator("#subtitle")).to_have_text("Sudoku 4×4 · 6 examples")
        assert _text(page, "h1") == "four/test"
        assert _board(page, "question") == _digits(four.inputs[0])
        assert page.locator("#with-model").is_hidden()
        assert page.locator("#states").is_hidden()
        page.screenshot(path=tmp_path / "folder.png")
        page.select_option("#split", "four/train")
        expect(page.locator("h1")).to_have_text("four/train")
        assert page.input_value("#split") == "four/train"
        assert page.locator("#split").is_visible()
        page.fill("#least", str(float(four.ratings.max())))
        assert _text(page, "#shown") != "6 examples"
        _drop(page, [*(tmp_path / "arc/test").iterdir(), tmp_path / "arc/identifiers.json"])
        expect(page.locator("#subtitle")).to_have_text("ARC 30×30 · 4 examples")
        assert _text(page, "#about") == "<b>one</b>"
        assert page.locator("#question .cell").count() == 11 * 13
        page.fill("#text", "two")
        assert _text(page, "#name") == "Example 2"


def _drop(page, paths):
    files = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in paths]
    page.evaluate(
        """(files) => {
          const dataTransfer = new DataTransfer();
          for (const [name, text] of files) {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            dataTransfer.items.add(new File([bytes], name));
          }
          const options = {dataTransfer, bubbles: true, cancelable: true};
          for (const type of ["dragenter", "dragover", "drop"]) {
            document.body.dispatchEvent(new DragEvent(type, options));
          }
        }""",
        files,
    )


def test_a_dropped_folder_is_opened(browser, sudoku, tmp_path, rng, expect):
    """Dragged in by the browser itself, which makes folders harder to read than files."""
    write_npy(tmp_path / "dragged", "train", _sudoku(4, 3, rng))
    write_npy(tmp_path / "dragged", "test", _sudoku(9, 3, rng))
    with browser(sudoku[0]) as page:
        _drag(page, tmp_path / "dragged")
        expect(page.locator("h1")).to_have_text("dragged/test")
        page.select_option("#split", "dragged/train")
        expect(page.locator("#subtitle")).to_have_text("Sudoku 4×4 · 3 examples")
        # Without this, Chromium refuses: the page was opened from a file.
        page.evaluate("delete DataTransferItem.prototype.getAsFileSystemHandle")
        _drag(page, tmp_path / "dragged")
        expect(page.locator("#alert")).to_contain_text("Take Open…, Folder… instead")
        assert _text(page, "#subtitle") == "Sudoku 4×4 · 3 examples"


def _drag(page, path):
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": 600, "y": 400}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def _text_of(text):
    return lambda path: path.write_text(text)


def _metadata(**fields):
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _array(array):
    return lambda path: np.save(path, array, allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("all__inputs.npy", _cut, "all__inputs.npy: cut off: 76 bytes of data, expected 96"),
        ("all__labels.npy", _text_of("x" * 200), "all__labels.npy: not a .npy file"),
        ("all__labels.npy", pathlib.Path.unlink, "all__labels.npy: missing; bad/test/dataset.json"),
        (
            "all__inputs.npy",
            _array(np.ones((6, 16), np.float32)),
            "all__inputs.npy: its dtype is <f4, expected int8, uint8, int32 or int64",
        ),
        ("all__inputs.npy", _array(np.ones((6, 16), ">i4")), "its dtype is >i4"),
        (
            "all__inputs.npy",
            _array(np.asfortranarray(np.ones((6, 16), np.uint8))),
            "it is in Fortran order, expected C order",
        ),
        (
            "all__inputs.npy",
            _array(np.ones((6, 25), np.uint8)),
            "its shape is (6, 25), expected (any number, 16)",
        ),
        (
            "all__labels.npy",
            _array(np.full((6, 16), 77, np.uint8)),
            "row 0, position 0: 77 is outside [0, 6) or 0",
        ),
        ("all__labels.npy", _array(np.full((6, 16), 1 << 40)), "element 0 does not fit 32 bits"),
        ("all__inputs.npy", _array(np.array([{"a": 1}])), "its dtype is |O, expected int8"),
        ("all__ratings.npy", _array(np.ones(5)), "expected (6,)"),
        ("dataset.json", _text_of("{"), "test/dataset.json: not valid JSON"),
        ("dataset.json", _text_of("[]"), "expected a JSON object"),
        ("dataset.json", _metadata(seq_len="<b>"), 'seq_len is "<b>", expected a whole number'),
        ("dataset.json", _metadata(sets=["../x"]), 'sets is ["../x"], expected a list'),
        ("dataset.json", pathlib.Path.unlink, "dataset.json: not among the"),
        ("../identifiers.json", _text_of("7"), "expected a list of names"),
        ("../identity.json", _text_of("{"), "bad/identity.json: not valid JSON"),
    ],
)
def test_a_bad_file_is_named(name, damage, message, shared_window, tmp_path, expect):
    puzzles = _sudoku(4, 6, np.random.default_rng(1))
    write_npy(tmp_path / "bad", "test", puzzles)
    damage(tmp_path / "bad" / "test" / name)
    page = shared_window
    page.set_input_files("#folder", tmp_path / "bad")
    expect(page.locator("#alert")).to_contain_text(message)
    assert _text(page, "#subtitle").startswith("Sudoku 6×6 · 40")  # what was there is still shown
    assert page.locator("#model .cell").count() == 36
    page.click("#alert-close")
    assert page.locator("#alert").is_hidden()


@pytest.fixture(scope="module")
def shared_window(browser, sudoku):
    with browser(sudoku[0]) as page:
        yield page


def test_a_drop_of_something_else(shared_window, tmp_path, expect):
    (tmp_path / "holiday.png").write_bytes(b"x")
    _drop(shared_window, [tmp_path / "holiday.png"])
    expect(shared_window.locator("#alert")).to_contain_text(
        "dataset.json: not among the 1 files given (holiday.png)"
    )
    shared_window.click("#alert-close")


def test_an_empty_page_waits_for_a_folder(browser, tmp_path, rng, expect):
    path = tmp_path / "empty.html"
    path.write_text(render_page(None), encoding="utf-8")
    write_npy(tmp_path / "data", "test", _sudoku(9, 3, rng))
    with browser(path) as page:
        assert "Drop a data set folder here" in _text(page, "#empty")
        for key in ("ArrowRight", "j", "Space", "End"):
            page.keyboard.press(key)
        page.click("#open")
        page.screenshot(path=tmp_path / "opening.png")
        with page.expect_file_chooser() as chooser:
            page.click("#open-folder")
        chooser.value.set_files(tmp_path / "data")
        expect(page.locator("#subtitle")).to_have_text("Sudoku 9×9 · 3 examples")


def test_text_that_would_be_markup_stays_text(browser, tmp_path):
    hostile = "</script><img src=https://example.org/x onerror=alert(1)><script>alert(2)</script>"
    puzzles = _arc()
    path = write_page(tmp_path / "hostile.html", puzzles, title=hostile, names=[hostile] * 5)
    with browser(path, refused=True) as page:
        assert _text(page, "h1") == hostile
        assert _text(page, "#about") == hostile
        assert page.locator("img").count() == 0
        blocked = page.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'blocked')")
        assert blocked == "blocked"


def test_ten_thousand_examples(browser, tmp_path, rng):
    some = _sudoku(9, 50, rng)
    rows = rng.integers(0, 50, 10_000)
    puzzles = PuzzleSet.simple(some.inputs[rows], some.labels[rows], 11, 0, rng.random(10_000))
    path = write_page(tmp_path / "many.html", puzzles, _steps(puzzles, 8, 3, rng))
    with browser(path) as page:
        assert "10,000 examples" in _text(page, "#subtitle")
        assert page.locator(".row").count() < 50
        slowest = page.evaluate(
            """async () => {
              const list = document.getElementById("list");
              const frame = () => new Promise(requestAnimationFrame);
              let slowest = 0;
              for (let k = 1; k <= 40; k++) {
                list.scrollTop = k * list.scrollHeight / 40;
                await frame();
                const begin = performance.now();
                await frame();
                slowest = Math.max(slowest, performance.now() - begin);
              }
              return slowest;
            }"""
        )
        assert slowest < 500
        assert page.locator(".row").count() < 50
        page.click("#example-9999")
        assert _text(page, "#name") == "Example 10,000"
        page.screenshot(path=tmp_path / "many.png")
        begin = page.evaluate("performance.now()")
        page.check("[value=unsolved]", force=True)
        page.fill("#text", "1")
        assert page.evaluate("performance.now()") - begin < 3000


def test_a_new_puzzle_needs_only_its_painter(browser, tmp_path, rng, expect, monkeypatch):
    """A Latin square has the sizes of a Sudoku; its data set says what it is."""
    painter = GridPainter(
        name="Latin square", plural="Latin squares", vocab_sizes={16: 6}, characters="?.ABCD",
        fills={2: "#123456"},
    )  # fmt: skip
    latin = Puzzle(name="latin", about="", data=PuzzleData, painter=painter)
    monkeypatch.setitem(PUZZLES, "latin", latin)
    path = tmp_path / "empty.html"
    path.write_text(render_page(None), encoding="utf-8")
    puzzles = _sudoku(4, 3, rng)
    write_npy(tmp_path / "squares", "test", puzzles)
    with browser(path) as page:
        page.set_input_files("#folder", tmp_path / "squares")
        expect(page.locator("#subtitle")).to_have_text("Sudoku 4×4 · 3 examples")
        assert page.locator("#answer .box-right").count() == 4
        (tmp_path / "squares" / "identity.json").write_text('{"builder": "latin squares"}')
        page.set_input_files("#folder", tmp_path / "squares")
        expect(page.locator("#subtitle")).to_have_text("Latin square 4×4 · 3 examples")
        assert _board(page, "answer") == [" ABCD"[t - 1] for t in puzzles.labels[0].tolist()]
        assert page.locator("#answer .box-right").count() == 0
        assert page.locator("#answer .filled").count() == 4
        colour = "getComputedStyle(document.querySelector('#answer .filled')).backgroundColor"
        assert page.evaluate(colour) == "rgb(18, 52, 86)"


@pytest.mark.parametrize(
    ("name", "heading", "selector", "shown"),
    [
        ("sudoku", "Sudoku 6×6", ".given", lambda t: t > 1),
        ("maze", "Maze 30×30", ".filled", lambda t: (t == 1) | (t > 2)),
        ("arc", "ARC 30×30", ".cell", lambda t: np.ones((11, 13))),
        ("domino", "Domino", ".given", lambda t: t > 0),
        ("tokens", "Tokens 50", ".cell", lambda t: np.ones((7, 8))),
    ],
)
def test_pictures(name, heading, selector, shown, browser, sudoku, tmp_path, rng):
    path, puzzles, _ = sudoku
    if name != "sudoku":
        tokens = rng.integers(1, 40, (2, 3, 50))
        make = {"maze": _maze, "arc": _arc, "domino": _domino}
        puzzles = make[name]() if name in make else PuzzleSet.simple(*tokens, 40, 0)
        path = tmp_path / "view.html"
        names = ["<blank>", "007bbfb7", "00d62c1b", "017c7c7b", "025d127b"] if name == "arc" else []
        steps = _steps(puzzles, 6, 2, rng)
        write_page(path, puzzles, steps, names=names, title=f"runs/{name}, test puzzles")
    question = puzzles.inputs[0]
    words = PUZZLES[name].painter.words if name in ("sudoku", "maze", "arc") else range(40)
    spoken = "answer 3" if name == "domino" else f"question {words[question[0]]}"
    with browser(path) as page:
        assert _text(page, "#subtitle").startswith(f"{heading} · {len(puzzles)} examples")
        assert page.locator(f"#question {selector}").count() == shown(question).sum()
        page.locator("#question .cell").first.hover()
        assert spoken in _text(page, "#detail")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        for look in ("desktop", "dark", "phone"):
            if look == "dark":
                page.emulate_media(color_scheme="dark")
                page.wait_for_selector("html[data-theme=dark]")
            elif look == "phone":
                page.emulate_media(color_scheme="light")
                page.set_viewport_size(PHONE)
            page.screenshot(path=tmp_path / f"{name}-{look}.png", full_page=look == "phone")
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0  # nothing sticks out sideways
        assert page.locator("#model .cell").first.bounding_box()["y"] < PHONE["height"] / 2
        page.click("#toggle-list")
        page.screenshot(path=tmp_path / f"{name}-list.png")
        page.click(".row >> nth=1")
        assert _text(page, "#name") == "Example 2"
        assert page.locator("#list").is_hidden()
