"""The server over real connections: OpenAI's own client, limits, errors, cancellation, draining."""

import asyncio
import contextlib
import dataclasses
import http.client
import importlib.util
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import pytest

import hrm_jax
from hrm_jax.data.text.tokenizers import ByteTokenizer
from hrm_jax.engine.decoder import Decoder
from hrm_jax.models.transformer import Transformer, TransformerConfig
from hrm_jax.server import http as server_http
from hrm_jax.server.options import Options
from hrm_jax.server.process import Server, bind

openai = pytest.importorskip("openai", reason="openai is not installed")

SERVE = pathlib.Path(__file__).parents[2] / "launch" / "serve.py"
JSON = {"Content-Type": "application/json"}
CONFIG = TransformerConfig(
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    ffn_size=16,
    max_length=256,
    positions="rotary",
    norm="rms",
    feed_forward="swiglu",
    bias=False,
    dropout=0.0,
    init_std=0.3,
)


class Endless(ByteTokenizer):
    """Answers go on until something else ends them."""

    eos_id = None
    fails = False

    def stream(self):
        stream = super().stream()
        if self.fails:
            stream.feed = None
        return stream


@pytest.fixture(scope="module")
def decoder():
    params = jax.jit(Transformer(CONFIG).init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    letters = set(range(97, 123))
    return Decoder(
        CONFIG,
        params["params"],
        Endless(),
        suppressed=tuple(x for x in range(260) if x not in letters),
        name="tiny",
    )


@pytest.fixture(scope="module")
def serving(decoder):
    """Runs a server in a thread, and ends it."""

    @contextlib.contextmanager
    def run(chat_template="", **options):
        key = options.get("api_key")
        served = dataclasses.replace(decoder, chat_template=chat_template)
        with bind(port=0, api_key=key) as listener:
            server = Server(served, listener, Options(**options), "warning")
            result = []
            thread = threading.Thread(target=lambda: result.append(server.run()), daemon=True)
            thread.start()
            server.result = lambda: thread.join(60) or result[0]
            try:
                _until(lambda: server.started)
                yield server
            finally:
                server.stop()
                server.stop()
                thread.join(60)
            assert not thread.is_alive()

    return run


@pytest.fixture(scope="module")
def server(serving):
    with serving(slots=2, max_queue=4, max_tokens=200, max_body=20_000) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    return _client(server)


def _client(server, **options):
    options = {"api_key": "none", "max_retries": 0, **options}
    return openai.OpenAI(base_url=f"{server.url}/v1", **options)


def _until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise TimeoutError("it did not happen within a minute")


def _call(server, path, body=None, method=None, **headers):
    """Status, headers and decoded body of one request."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {**JSON, **{k.replace("_", "-"): v for k, v in headers.items()}}
        connection.request(method or ("GET" if body is None else "POST"), path, data, headers)
        response = connection.getresponse()
        text = response.read().decode()
    is_json = response.headers["content-type"] == "application/json"
    return response.status, response.headers, json.loads(text) if is_json else text


@contextlib.contextmanager
def _slowed(server, seconds=0.05, hold=None):
    """Lets each round of the engine take longer, or wait for `hold`."""
    engine, step = server.engine, server.engine.step

    def slow():
        time.sleep(seconds)
        if hold is not None:
            hold.wait(60)
        return step()

    engine.step = slow
    try:
        yield
    finally:
        del engine.step


# --- OpenAI's client ------------------------------------------------------------------------------


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "hrm_jax"
    with pytest.raises(openai.NotFoundError, match="there is no 'other'; expected 'tiny'"):
        client.models.retrieve("other")


def test_a_completion(client, server):
    options = {"model": "tiny", "prompt": "hello", "seed": 7, "max_tokens": 12}
    answer = client.completions.create(**options)
    expected = server.engine.generate("hello", seed=7, max_new_tokens=12)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.index) == (expected.text, "length", 0)
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (6, 12, 18)
    tokens = client.completions.create(**{**options, "prompt": list(b"hello")})
    assert tokens.choices[0].text == expected.text
    greedy = client.completions.create(**options, temperature=0)
    assert greedy.choices[0].text != expected.text
    only = client.completions.create(**options, extra_body={"top_k": 1})
    assert only.choices[0].text == greedy.choices[0].text
    least = client.completions.create(**options, extra_body={"min_p": 1.0})
    assert least.choices[0].text == greedy.choices[0].text
    new = client.completions.create(
        **{**options, "temperature": 0}, extra_body={"repetition_penalty": 100.0}
    )
    assert len(set(new.choices[0].text)) == 12
    until = client.completions.create(**options, stop=expected.text[5:7])
    assert expected.text.startswith(until.choices[0].text)
    assert until.choices[0].finish_reason == "stop"
    assert expected.text[5:7] not in until.choices[0].text
    assert len(client.completions.create(model="tiny", prompt="").choices[0].text) == 16


def test_several_prompts_and_choices(client):
    options = {"model": "tiny", "seed": 3, "max_tokens": 8}
    both = client.completions.create(**options, prompt=["one", "three"], n=2)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in both.choices}) == 4
    assert (both.usage.prompt_tokens, both.usage.completion_tokens) == (4 + 6, 32)
    alone = client.completions.create(**options, prompt="three", n=2)
    assert [c.text for c in alone.choices] == [c.text for c in both.choices[2:]]
    unseeded = [
        client.completions.create(model="tiny", prompt="x", max_tokens=16).choices[0].text
        for _ in range(2)
    ]
    assert unseeded[0] != unseeded[1]


def test_log_probabilities(client, server):
    options = {"model": "tiny", "seed": 1, "max_tokens": 4}
    expected = server.engine.generate("ab", seed=1, max_new_tokens=4, logprobs=2)
    answer = client.completions.create(**options, prompt="ab", logprobs=2)
    told = answer.choices[0].logprobs
    assert "".join(told.tokens) == answer.choices[0].text
    assert told.token_logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert told.text_offset == [0, 1, 2, 3]
    assert [len(top) for top in told.top_logprobs] == [2] * 4
    chat = client.chat.completions.create(
        **options, messages=[{"role": "user", "content": "ab"}], logprobs=True, top_logprobs=1
    )
    content = chat.choices[0].logprobs.content
    assert [entry.logprob for entry in content] == pytest.approx(expected.logprobs, abs=1e-4)
    assert [bytes(entry.bytes).decode() for entry in content] == told.tokens
    likeliest = [top[0][1] for top in expected.top]
    assert [e.top_logprobs[0].logprob for e in content] == pytest.approx(likeliest, abs=1e-4)
    assert chat.choices[0].message.content == answer.choices[0].text


def test_a_stream_is_the_same_answer_in_parts(client):
    options = {"model": "tiny", "prompt": ["hello", "you"], "seed": 7, "max_tokens": 40}
    whole = client.completions.create(**options, logprobs=0)
    chunks = list(
        client.completions.create(
            **options, logprobs=0, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks.pop().usage == whole.usage
    assert len(chunks) > 4
    for expected in whole.choices:
        parts = [c.choices[0] for c in chunks if c.choices[0].index == expected.index]
        assert "".join(part.text for part in parts) == expected.text
        reasons = [part.finish_reason for part in parts]
        assert reasons == [None] * (len(parts) - 1) + ["length"]
        tokens = [token for part in parts for token in part.logprobs.tokens]
        assert tokens == expected.logprobs.tokens
        offsets = [offset for part in parts for offset in part.logprobs.text_offset]
        assert offsets == expected.logprobs.text_offset == list(range(40))


def test_a_chat(client, server):
    earlier = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    content = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    options = {"model": "tiny", "seed": 7, "max_completion_tokens": 12}
    messages = [*earlier, {"role": "user", "content": content}]
    answer = client.chat.completions.create(**options, messages=messages)
    text = server.engine.generate("hello", seed=7, max_new_tokens=12).text
    assert answer.choices[0].message.content == text
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.total_tokens == 18
    again = [*messages, answer.choices[0].message, {"role": "user", "content": "hello"}]
    chunks = list(client.chat.completions.create(**options, messages=again, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert chunks[-1].choices[0].finish_reason == "length"
    everything = client.chat.completions.create(model="tiny", messages=messages)
    assert everything.usage.completion_tokens == 200  # as many as the server allows


def test_a_chat_template_of_the_model(serving):
    with serving(
        slots=1, chat_template="{{ messages | length }}{{ messages[0].content }}"
    ) as server:
        answer = _client(server).chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}], max_tokens=5, temperature=0
        )
        text = server.engine.generate("1x", max_new_tokens=5, temperature=0).text
        assert answer.choices[0].message.content == text
    with pytest.raises(ValueError, match="chat_template: line 1"), serving(chat_template="{%"):
        pass


def test_many_at_once(server):
    async def ask():
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0
        ) as client:

            async def stream(seed):
                chunks = await client.completions.create(
                    model="tiny", prompt="x" * seed, seed=seed, max_tokens=20, stream=True
                )
                return "".join([chunk.choices[0].text async for chunk in chunks])

            return await asyncio.gather(*map(stream, range(1, 6)))

    texts = asyncio.run(ask())
    for seed, text in enumerate(texts, 1):
        assert text == server.engine.generate("x" * seed, seed=seed, max_new_tokens=20).text


# --- what is refused ------------------------------------------------------------------------------

USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"prompt": None}, "prompt", "Field required"),
        ({"prompt": []}, "prompt", "expected a text, a list of texts"),
        ({"prompt": ["x", 1]}, "prompt", "expected a text, a list of texts"),
        ({"prompt": [[1], []]}, "prompt", "expected a text, a list of texts"),
        ({"prompt": [True]}, "prompt", "expected a text, a list of texts"),
        ({"prompt": [1, 260]}, "prompt", r"expected tokens in \[0, 260\), got 260"),
        ({"prompt": "x" * 300}, "prompt", "expected at most 255 tokens"),
        ({"prompt": ["x"] * 5}, "prompt", "expected at most 4 answers in one request, got 5"),
        ({"n": 3}, "n", "expected at most 2, got 3"),
        ({"n": 0}, "n", "greater than or equal to 1, got 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 201}, "max_tokens", "expected at most 200, got 201"),
        ({"max_tokens": "9"}, "max_tokens", "valid integer, got '9'"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"top_k": -1}, "top_k", "greater than or equal to 0"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than or equal to"),
        ({"seed": 1 << 70}, "seed", "."),
        ({"stop": [""]}, "stop[0]", "at least 1 character"),
        ({"stop": ["x"] * 17}, "stop", "at most 16 items"),
        ({"stop": 3}, "stop", "valid array"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
        ({"logprobs": True}, "logprobs", "valid integer"),
        ({"stream": "yes"}, "stream", "valid boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only with stream=true"),
        ({"echo": True}, "echo", "not supported; expected none, or False"),
        ({"suffix": "end"}, "suffix", "not supported"),
        ({"best_of": 2}, "best_of", "not supported"),
        ({"logit_bias": {"50": 1}}, "logit_bias", "not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "not supported"),
        ({"max_new_tokens": 5}, "max_new_tokens", "not a field that this server knows"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{**USER, "role": "tool"}]}, "messages[0].role", "'system'"),
        ({"messages": [USER, {"role": "user"}]}, "messages[1].content", "Field required"),
        ({"messages": [{**USER, "tool_calls": [1]}]}, "messages[0].tool_calls", "not supported"),
        (
            {"messages": [{**USER, "content": [{"type": "image_url"}]}]},
            "messages[0].content",
            'parts of the type "text" only',
        ),
        ({"messages": [{**USER, "role": "assistant"}]}, "messages", "last message to be of the"),
        ({"messages": [USER], "top_logprobs": 2}, "top_logprobs", "only with logprobs=true"),
        ({"messages": [USER], "tools": [{}]}, "tools", "not supported"),
        ({"messages": [USER], "response_format": {"type": "json_object"}}, "response_format", "."),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(fields, param, message, server):
    path = "chat/completions" if "messages" in fields else "completions"
    body = fields if "messages" in fields else {"prompt": "x", **fields}
    status, _, answer = _call(server, f"/v1/{path}", body)
    error = answer["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"].startswith(param.partition("[")[0])
    assert re.search(message, error["message"])


def test_what_asks_for_nothing_is_taken(client):
    answer = client.completions.create(
        model="tiny", prompt="x", user="me", best_of=1, echo=False, frequency_penalty=0,
        logit_bias={}, suffix=None, max_tokens=1, extra_body={"metadata": {"a": "b"}},
    )  # fmt: skip
    assert answer.usage.completion_tokens == 1
    client.chat.completions.create(
        model="tiny", messages=[{**USER, "name": "me"}], max_tokens=1, tool_choice="none",
        response_format={"type": "text"}, store=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/v1/completions", b'{"prompt": "x', {}, 400, "not valid JSON"),
        ("/v1/completions", b'{"prompt": "\xff"}', {}, 400, "not valid JSON"),
        ("/v1/completions", b"[" * 5000, {}, 400, "not valid JSON"),
        ("/v1/completions", b"[]", {}, 400, "body: Input should be"),
        ("/v1/completions", b'{"prompt": "x", "top_p": NaN}', {}, 400, "top_p: .*finite number"),
        ("/v1/completions", b"", {}, 400, "not valid JSON"),
        ("/v1/completions", {}, {"Content_Type": "text/plain"}, 415, "expected application/json"),
        ("/v1/completions", {"prompt": "x", "model": "gpt"}, {}, 404, "there is no 'gpt'"),
        ("/v1/completions", None, {}, 405, "GET /v1/completions: Method Not Allowed"),
        ("/v1/embeddings", {}, {}, 404, "POST /v1/embeddings: Not Found"),
        ("/v1/completions", b" " * 20_001, {}, 413, "larger than 20000 bytes"),
        ("/v1/models", None, {"Host": "evil.example"}, 403, "expected localhost or a loopback"),
        ("/", None, {"Host": "127.0.0.1.evil.example:80"}, 403, "expected localhost"),
    ],
)
def test_a_bad_request_is_told_in_openais_form(path, body, headers, status, message, server):
    found, _, answer = _call(server, path, body, **headers)
    assert found == status
    assert re.search(message, answer["error"]["message"])
    assert set(answer["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.2", "[::1]:80"])
def test_loopback_hosts(host, server):
    assert _call(server, "/health", Host=host)[0] == 200


def _raw(server, text):
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(text.encode())
    return connection


CHUNKED = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_body_is_limited_while_it_is_read(server):
    head = f"{CHUNKED}Transfer-Encoding: chunked\r\n\r\n"
    with _raw(server, f"{head}{20_001:x}\r\n{' ' * 20_001}\r\n") as connection:  # goes on
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert json.loads(answer.read())["error"]["code"] == "body_too_large"


def test_a_body_that_never_comes(server, monkeypatch):
    monkeypatch.setattr(server_http, "_BODY_SECONDS", 0.1)
    with _raw(server, f"{CHUNKED}Content-Length: 10\r\n\r\n{{") as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 408


def test_a_full_queue_gives_429(serving):
    hold = threading.Event()
    with serving(slots=1, max_queue=2) as server, _slowed(server, 0, hold):
        client = _client(server)
        answers = []

        def ask():
            answers.append(client.completions.create(model="tiny", prompt="x", max_tokens=2))

        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        _until(lambda: server.engine.stats.waiting == 2)
        status, headers, answer = _call(server, "/v1/completions", {"prompt": "x"})
        assert (status, headers["retry-after"]) == (429, "1")
        assert (answer["error"]["type"], answer["error"]["code"]) == (
            "rate_limit_error",
            "queue_full",
        )
        with pytest.raises(openai.RateLimitError):
            client.completions.create(model="tiny", prompt=["x", "y"])
        assert server.engine.stats.waiting == 2
        hold.set()
        for asker in askers:
            asker.join(60)
        assert len(answers) == 2
        assert _client(server).completions.create(model="tiny", prompt="x").usage.total_tokens == 18


def test_a_key_is_asked_for(serving):
    with serving(slots=1, api_key="sésame") as server:
        for path in ("/v1/models", "/metrics", "/v1/nothing"):
            status, headers, answer = _call(server, path)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert answer["error"]["code"] == "invalid_api_key"
        for path in ("/health", "/"):
            assert _call(server, path)[0] == 200
        with pytest.raises(openai.AuthenticationError):
            _client(server, api_key="sesame").models.list()
        key = "sésame".encode().decode("latin-1")  # as its bytes
        assert _call(server, "/v1/models", Authorization=f"bearer {key}")[0] == 200
        assert _call(server, "/v1/models", Authorization=f"Basic {key}")[0] == 401


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_others_cannot_reach_it_without_a_key(host):
    with pytest.raises(ValueError, match=r"^host: "):
        bind(host, 0)
    with bind("0.0.0.0", 0, "key") as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


# --- health, figures, page ------------------------------------------------------------------------


def test_figures(serving):
    with serving(slots=1) as server:
        client = _client(server)
        client.completions.create(model="tiny", prompt="abc", max_tokens=5)
        list(client.completions.create(model="tiny", prompt="abc", max_tokens=5, stream=True))
        _call(server, "/v1/chat/completions", {})
        assert _call(server, "/health")[2] == {"status": "ok", "running": 0, "waiting": 0}
        status, headers, text = _call(server, "/metrics")
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
        for line in (
            'hrm_jax_requests_total{endpoint="/v1/completions",outcome="ok"} 2.0',
            'hrm_jax_requests_total{endpoint="/v1/chat/completions",outcome="refused"} 1.0',
            'hrm_jax_tokens_total{kind="prompt"} 8.0',
            'hrm_jax_tokens_total{kind="generated"} 10.0',
            'hrm_jax_answers_total{reason="length"} 2.0',
            "hrm_jax_running 0.0",
            "hrm_jax_waiting 0.0",
            "hrm_jax_time_to_first_token_seconds_count 2.0",
            "hrm_jax_generation_seconds_count 2.0",
        ):
            assert f"\n{line}\n" in text


def test_the_page_may_do_nothing_else(server):
    status, headers, page = _call(server, "/")
    policy = headers["content-security-policy"]
    assert (status, "default-src 'none'" in policy) == (200, True)
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert "innerHTML" not in page


# --- clients that leave, signals, crashes ---------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(stream, serving):
    with serving(slots=1) as server, _slowed(server, 0.1):
        body = json.dumps({"prompt": "x", "max_tokens": 255, "stream": stream})
        text = f"{CHUNKED}Content-Length: {len(body)}\r\n\r\n{body}"
        with _raw(server, text) as connection:
            if stream:
                assert b"200 OK" in connection.recv(100)
            _until(lambda: server.engine.stats.running == 1)
        _until(lambda: server.engine.stats.finished.get("cancelled") == 1)
        assert server.engine.stats.running == 0
        outcome = 'hrm_jax_requests_total{endpoint="/v1/completions",outcome="cancelled"} 1.0'
        _until(lambda: outcome in _call(server, "/metrics")[2])


def test_it_finishes_what_runs(serving):
    with serving(slots=1) as server, _slowed(server):
        stream = _client(server).completions.create(
            model="tiny", prompt="x", max_tokens=100, stream=True
        )
        chunks = [next(stream)]
        server.stop()
        _until(lambda: _call(server, "/health")[0] == 503)
        assert _call(server, "/health")[2]["status"] == "draining"
        status, headers, answer = _call(server, "/v1/completions", {"prompt": "x"})
        assert (status, answer["error"]["code"]) == (503, "draining")
        assert headers["retry-after"] == "5"
        chunks += stream
        assert len("".join(chunk.choices[0].text for chunk in chunks)) == 100
        assert server.result() is True
        with pytest.raises(OSError, match="refused"):
            _call(server, "/health")


def test_it_does_not_wait_for_ever(serving):
    with serving(slots=1, drain_seconds=0.1) as server, _slowed(server, 0.2):
        stream = _client(server).completions.create(
            model="tiny", prompt="x", max_tokens=255, stream=True
        )
        next(stream)
        server.stop()
        with pytest.raises(openai.APIError, match="shutting down"):
            list(stream)
        assert server.result() is True
        assert server.engine.stats.finished == {"cancelled": 1}


def test_a_failed_step_is_one_answers_end(serving, decoder, monkeypatch):
    with serving(slots=1) as server:
        client = _client(server)
        with monkeypatch.context() as patch:
            patch.setattr(decoder.tokenizer, "fails", True)
            with pytest.raises(openai.InternalServerError, match="the engine failed") as error:
                client.completions.create(model="tiny", prompt="x")
        assert error.value.status_code == 500
        assert "NoneType" not in str(error.value)
        assert client.completions.create(model="tiny", prompt="x").usage.completion_tokens == 16
        assert _call(server, "/health")[0] == 200


class Crash(BaseException):
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_of_the_engine_is_told(serving):
    with serving(slots=1) as server, _slowed(server):
        client = _client(server)
        stream = client.completions.create(model="tiny", prompt="x", max_tokens=255, stream=True)
        next(stream)
        step = server.engine.step

        def crash():
            step()
            raise Crash

        server.engine.step = crash
        with pytest.raises(openai.APIError, match="the engine failed"):
            list(stream)
        _until(lambda: _call(server, "/health")[0] == 503)
        assert _call(server, "/health")[2]["status"] == "failed"
        status, _, answer = _call(server, "/v1/completions", {"prompt": "x"})
        assert (status, answer["error"]["type"]) == (500, "server_error")
        server.stop()
        assert server.result() is False


# --- launch/serve.py ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def language_run(tmp_path_factory):
    """The workdir of a language model after one step."""
    folder = tmp_path_factory.mktemp("language")
    (folder / "text.txt").write_text("abcabc" * 60)
    text = str(folder / "text.txt")
    config = {
        "task": "text",
        "steps": 1,
        "batch_size": 4,
        "eval_every": 1,
        "checkpoint_every": 1,
        "tensorboard": False,
        "data": {"train": text, "test": text, "length": 16, "eval_stride": 8},
        "model": {
            "name": "transformer",
            "hidden_size": 16,
            "num_layers": 1,
            "num_heads": 2,
            "ffn_size": 16,
            "max_length": 128,
            "positions": "rotary",
            "dropout": 0.0,
        },
    }
    hrm_jax.train(config, folder / "run", progress=False)
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_script(number, language_run):
    with subprocess.Popen(
        [sys.executable, SERVE, f"--workdir={language_run}", "--port=0", "--drain_seconds=300"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            name, url = re.fullmatch(r"(\w+) at (http://\S+)\n", process.stdout.readline()).groups()
            assert name == "run"
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=5)
            stream = client.completions.create(
                model="run", prompt="abc", max_tokens=120, temperature=0, stream=True
            )
            chunks = [next(stream)]
            process.send_signal(number)
            chunks += stream
            assert chunks[-1].choices[0].finish_reason in ("length", "stop")
            assert process.wait(300) == 0
        finally:
            process.kill()


@pytest.fixture
def run_script(capsys):
    spec = importlib.util.spec_from_file_location("launch_serve", SERVE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *argv: (module.main([str(x) for x in argv]), *capsys.readouterr())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--host=0.0.0.0"], "host: others can reach '0.0.0.0', so an API key is needed"),
        (["--host=nowhere.invalid"], "host: 'nowhere.invalid', port 0: "),
        (["--workdir=none"], "none: not the workdir of a run"),
        (["--max_tokens=-1"], "max_tokens: expected at least 0, got -1"),
        (["--slots=0"], "slots: expected at least 1"),
        (["--api_key="], "api_key: expected at least one character"),
        (["--checkpoint=7"], "no checkpoint 7; there are: 1"),
        (["--chat_template=none.jinja"], "none.jinja"),
    ],
)  # fmt: skip
def test_script_errors(flags, message, run_script, language_run, monkeypatch):
    monkeypatch.delenv("HRM_JAX_API_KEY", raising=False)
    code, out, error = run_script("--workdir", language_run, "--port=0", *flags)
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert message in error


def test_a_port_that_is_taken_and_a_run_of_puzzles(run_script, trained):
    with bind(port=0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        code, _, error = run_script("--workdir", trained, f"--port={port}")
        assert code == 2
        assert f"port: 127.0.0.1:{port} cannot be bound: Address already in use" in error
    code, _, error = run_script("--workdir", trained, "--port=0")
    assert (code, "a run of puzzles; this serves language models" in error) == (2, True)
