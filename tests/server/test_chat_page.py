"""The chat page in a real browser: Debian's Chromium, driven by Playwright, against the server."""

import contextlib
import time

import pytest

from hrm_jax.data.text.tokenizers import ByteTokenizer

pytestmark = pytest.mark.slow
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
NAME = "<b>tiny</b>"


class Markup(ByteTokenizer):
    """Every answer is markup, over and over."""

    eos_id = None

    def stream(self):
        stream = super().stream()
        feed = stream.feed
        stream.feed = lambda ids: feed(ids) and "<img src=x onerror=alert(1)> "
        return stream


MARKUP = {"tokenizer": Markup(), "name": NAME}


@pytest.fixture(scope="module")
def server(serving):
    with serving(MARKUP, slots=2) as server:
        server.engine.generate("x", max_new_tokens=9)  # compiles
        yield server


@pytest.fixture(scope="module")
def browser(open_window):
    """Opens the page in windows; requests to elsewhere and errors in the console fail the test."""

    @contextlib.contextmanager
    def window(server, size=DESKTOP, scheme="light", expected=""):
        with open_window(server.url, size, scheme) as (page, requests, messages):
            yield page
            assert all(url.startswith((server.url, "data:")) for url in requests)
            assert all(expected and expected in message for message in messages), messages
            page.evaluate("localStorage.clear()")

    return window


def _settings(page, tokens):
    page.click("#toggle-settings")
    page.fill("#max-tokens", str(tokens))
    page.fill("#temperature", "0.5")
    page.click("#toggle-settings")


def test_a_chat_by_keyboard(browser, server, tmp_path, expect):
    with browser(server) as page:
        assert page.locator("#model").inner_text() == page.title() == NAME
        _settings(page, 3)
        page.focus("#text")
        page.keyboard.type("one")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("<i>two</i>")
        with page.expect_request("**/v1/chat/completions") as sent:
            page.keyboard.press("Enter")
        body = sent.value.post_data_json
        assert body["messages"] == [{"role": "user", "content": "one\n<i>two</i>"}]
        assert (body["max_tokens"], body["temperature"], body["stream"]) == (3, 0.5, True)
        expect(page.locator(".note").last).to_contain_text("3 tokens in ")
        texts = page.locator(".message .text").all_inner_texts()
        assert texts[0] == "one\n<i>two</i>"
        answer = "<img src=x onerror=alert(1)> " * 3
        assert texts[1].strip() == answer.strip()
        assert page.locator("main img, main i, header b").count() == 0
        page.screenshot(path=tmp_path / "chat.png")
        page.keyboard.type("more")  # the focus has stayed
        with page.expect_request("**/v1/chat/completions") as sent:
            page.click("#send")
        history = [(m["role"], m["content"]) for m in sent.value.post_data_json["messages"]]
        assert history[1:] == [("assistant", answer), ("user", "more")]
        expect(page.locator(".note").last).to_contain_text("limit of tokens")
        page.click("#new")
        assert page.locator(".message").count() == 0
        assert page.locator("#empty").is_visible()


@pytest.mark.parametrize("how", ["click", "key"])
def test_stopping(how, browser, server, tmp_path, expect):
    before = server.engine.stats.finished.get("cancelled", 0)

    def cancelled(more):
        for _ in range(1000):
            stats = server.engine.stats
            if stats.finished.get("cancelled", 0) == before + more and not stats.running:
                return True
            time.sleep(0.01)
        return False

    with browser(server) as page, server.slowed(0.1):
        _settings(page, 250)
        page.fill("#text", "go")
        page.press("#text", "Enter")
        expect(page.locator(".message.assistant .text")).to_contain_text("img")
        assert page.locator("#send").is_hidden()
        page.screenshot(path=tmp_path / "writing.png")
        if how == "click":
            page.click("#stop")
        else:
            page.keyboard.press("Escape")
        expect(page.locator(".note").last).to_have_text("stopped")
        assert page.locator("#send").is_visible()
        assert cancelled(1)
        page.fill("#text", "again")
        page.press("#text", "Enter")
        expect(page.locator(".message")).to_have_count(4)
        page.click("#new")
        assert page.locator(".message").count() == 0
        assert cancelled(2)


def test_errors_are_shown_and_the_text_is_kept(browser, server, expect):
    with browser(server, expected="400 (Bad Request)") as page:
        page.fill("#text", "x" * 300)
        page.press("#text", "Enter")
        expect(page.locator("#alert")).to_contain_text("expected at most 255 tokens")
        assert page.input_value("#text") == "x" * 300
        assert page.locator(".message").count() == 0
        page.click("#toggle-settings")
        page.fill("#temperature", "9")
        page.fill("#text", "x")
        page.press("#text", "Enter")
        expect(page.locator("#alert")).to_contain_text("Temperature: ")
        page.fill("#temperature", "0")
        page.fill("#max-tokens", "5")
        page.press("#text", "Enter")
        expect(page.locator("#alert")).to_be_hidden()
        expect(page.locator(".note").last).to_contain_text("tokens in")


def test_a_server_of_short_answers(browser, serving, expect):
    """The page asks for no more tokens than it gives, and remembers what was wanted elsewhere."""
    with serving(MARKUP, slots=2, max_tokens=7) as server, browser(server) as page:
        assert page.input_value("#max-tokens") == "7"
        page.fill("#text", "x")
        page.press("#text", "Enter")
        expect(page.locator(".note").last).to_contain_text("7 tokens in")
        assert page.evaluate("localStorage.getItem('chat-max-tokens')") is None


def test_a_key(browser, serving, tmp_path, expect):
    with (
        serving(MARKUP, slots=2, api_key="secret") as server,
        browser(server, expected="401 (Unauthorized)") as page,
    ):
        expect(page.locator("#alert")).to_contain_text("asks for an API key")
        page.screenshot(path=tmp_path / "key.png")
        page.fill("#key", "secret")
        page.press("#key", "Enter")
        expect(page.locator("#model")).to_have_text(NAME)
        expect(page.locator("#alert")).to_be_hidden()
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.locator("#model").inner_text() == NAME
        _settings(page, 5)
        page.fill("#text", "x")
        page.press("#text", "Enter")
        expect(page.locator(".note").last).to_contain_text("tokens in")


@pytest.mark.parametrize("look", ["desktop", "phone", "dark"])
def test_looks(look, browser, server, tmp_path, expect):
    size, scheme = PHONE if look == "phone" else DESKTOP, "dark" if look == "dark" else "light"
    with browser(server, size, scheme) as page:
        assert page.get_attribute("html", "data-theme") == scheme
        page.fill("#text", "A question that is long enough to be broken into lines. " * 3)
        _settings(page, 40)
        page.press("#text", "Enter")
        expect(page.locator(".note").last).to_contain_text("40 tokens")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        bottom = page.evaluate("$('scroll').scrollHeight - $('scroll').scrollTop")
        assert bottom - page.evaluate("$('scroll').clientHeight") < 120
        page.click("#toggle-settings")
        page.screenshot(path=tmp_path / f"{look}.png")
        page.click("#theme")
        other = "light" if scheme == "dark" else "dark"
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.get_attribute("html", "data-theme") == other
