"""Requests changed at random: whatever comes, the answer is no error of the server's."""

import copy
import http.client
import json
import logging
import random
import socket

import pytest

COMPLETION = {
    "model": "tiny", "prompt": "abc", "n": 1, "max_tokens": 2, "temperature": 0.5, "top_p": 0.9,
    "seed": 7, "stop": ["zz"], "stream": False, "logprobs": 2, "top_k": 3, "min_p": 0.1,
    "repetition_penalty": 1.1, "stop_token_ids": [97], "ignore_eos": False, "echo": False,
    "logit_bias": {}, "user": "me", "stream_options": None, "return_tokens_as_token_ids": True,
}  # fmt: skip
CHAT = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "abc"}]},
    ],
    "max_completion_tokens": 2, "max_tokens": 2, "logprobs": True, "top_logprobs": 2, "tools": [],
    "response_format": {"type": "text"}, "stream": True, "stream_options": {"include_usage": True},
}  # fmt: skip
NUMBERS = [0, 1, -1, 0.5, 1e308, 2**31, 2**32, 2**63, 2**64, 2**70, -(2**63) - 1, 10**400]
HOSTILE = [
    *NUMBERS, *([x] for x in NUMBERS), float("nan"), float("inf"), None, True, "", "x" * 400, [],
    [[]], {}, [None], [True], {"type": "text"}, {"": []}, "\0", "\ud800", "\udc00x", "🙂" * 90,
    [["x"]], ["x"] * 9, [{"role": "user"}], "tiny", json.loads("[" * 90 + "]" * 90),
]  # fmt: skip
REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: 31\r\n\r\n" + b'{"prompt": "x", "max_tokens":1}'
)
CHUNKED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    b'd\r\n{"messages": \r\n6\r\n["x"]}\r\n0\r\n\r\n'
)
SNIPPETS = [
    b"\r\n", b"\r\n\r\n", b"\0", b"\xff\xfe", b": ", b"%00%ff", b"[", b"-1", b"9" * 30,
    b"a" * 20_000, b"HTTP/9.9", b"CONNECT ", b"//..//", b"http://[/", b"Host: b\r\n",
    b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Type: text/plain\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Authorization: Bearer \xe9\r\n",
]  # fmt: skip


@pytest.fixture(scope="module")
def target(serving):
    with serving(slots=2, max_queue=4, max_tokens=4, max_body=20_000) as server:
        yield server
        idle = {"status": "ok", "running": 0, "waiting": 0}
        server.until(lambda: server.call("/health")[2] == idle)
        text = server.client().completions.create(model="tiny", prompt="x", max_tokens=3)
        assert len(text.choices[0].text) == 3


def _mutated(data, rng):
    """Bytes with some of them replaced, taken out, doubled or put in."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randint(0, 12))
        data[at:end] = rng.choice(
            [b"", bytes(data[at:end]) * 2, rng.randbytes(2), rng.choice(SNIPPETS)]
        )
    return bytes(data)


def _changed(value, rng):
    """A value with something in it replaced or taken out."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        at = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if rng.random() < 0.1:
            del value[at]
        else:
            value[at] = _changed(value[at], rng)
        return value
    return rng.choice(HOSTILE)


@pytest.fixture(autouse=True)
def no_errors(caplog, monkeypatch):
    """Nothing in the server's log is an error."""
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)
    yield
    assert not [r for r in caplog.get_records("call") if r.levelname == "ERROR"]


def test_bodies(target):
    rng = random.Random(0)
    connection = http.client.HTTPConnection(target.url.removeprefix("http://"), timeout=60)
    statuses = []
    for case in range(250):
        path, base = ("completions", COMPLETION) if case % 2 else ("chat/completions", CHAT)
        body = copy.deepcopy(base)
        for _ in range(rng.randint(1, 2)):
            _changed(body, rng)
        data = json.dumps(body).encode()
        if case % 5 == 0:
            data = _mutated(data, rng)
        connection.request("POST", f"/v1/{path}", data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        assert response.status in (200, 400, 404, 413), (response.status, answer, data)
        assert b"server_error" not in answer, data
        statuses.append(response.status)
    connection.close()
    assert statuses.count(200) > 20
    assert statuses.count(400) > 100


def test_bytes(target):
    rng = random.Random(1)
    host, port = target.url.removeprefix("http://").split(":")
    statuses = set()
    for case in range(150):
        data = _mutated(CHUNKED if case % 2 else REQUEST, rng)
        with socket.create_connection((host, int(port)), timeout=0.02) as connection:
            answer = b""
            try:
                connection.sendall(data)
                while part := connection.recv(65536):
                    answer += part
            except OSError:  # it waits for more, or has closed
                pass
        heads = [part[:4] for part in answer.split(b"HTTP/1.1 ")[1:]]
        assert not {b"500 ", b"502 "} & set(heads), (data, answer)
        statuses.update(heads)
    assert {b"100 ", b"400 ", b"404 ", b"415 "} <= statuses
