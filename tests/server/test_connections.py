"""Connections of clients that are many, slow, silent or rude."""

import asyncio
import contextlib
import http.client
import json
import resource
import socket
import time

import pytest

from hrm_jax.server import connections

HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def _connect(server):
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def _answer(connection):
    """Status and body of the next answer."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def _closed(connection):
    """Whether the server closes a connection without a word; waits for it."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(100) == b""
    return True


def test_a_hundred_clients_at_once(serving):
    async def ask(port, seed):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for stream in (False, True):  # on the same connection
            body = json.dumps({"prompt": "x", "seed": seed, "max_tokens": 4, "stream": stream})
            writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 200")
            if stream:
                text = await reader.readuntil(b"[DONE]\n\n")
                assert text.count(b'"finish_reason": "length"') == 1
            else:
                size = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
                text = json.loads(await reader.readexactly(size))["choices"][0]["text"]
                assert len(text) == 4
        writer.close()

    async def ask_all(port):
        await asyncio.gather(*(ask(port, seed) for seed in range(100)))

    with serving(slots=2, max_queue=100) as server:
        asyncio.run(ask_all(int(server.url.rpartition(":")[2])))
        assert server.engine.stats.finished == {"length": 200}
        server.until(lambda: not server.connections)


def test_idle_connections_give_way(serving):
    with serving(slots=1, max_connections=8) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(_connect(server)) for _ in range(30)]
        assert server.call("/health")[0] == 200
        assert all(map(_closed, idle[:20]))  # those that were idle for longest
        assert len(server.connections) <= 8
        idle[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert _answer(idle[-1])[0] == 200


def test_connections_in_use_do_not_give_way(serving):
    with serving(slots=1, max_connections=1) as server, server.slowed(0.05):
        body = json.dumps({"prompt": "x", "max_tokens": 20})
        with server.connect(f"Content-Length: {len(body)}\r\n\r\n{body}") as busy:
            server.until(lambda: server.engine.stats.running == 1)
            with _connect(server) as other:
                status, told = _answer(other)
            assert (status, json.loads(told)["error"]["code"]) == (503, "too_many_connections")
            assert _answer(busy)[0] == 200


def test_the_limit_on_open_files(monkeypatch):
    """It is raised as far as it may be, and else there are fewer connections."""
    limits = [(-1, -1)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    assert connections.most_connections(10**9) == 10**9
    assert len(limits) == 1
    limits.append((1000, -1))
    assert connections.most_connections(2000) == 2000
    assert (limits[-1][0] > 4000, limits[-1][1]) == (True, -1)
    limits.append((1000, 3000))
    assert 1000 < connections.most_connections(2000) < 1500
    assert limits[-1] == (3000, 3000)
    limits.append((1, 1))
    assert connections.most_connections(2000) == 1


@pytest.mark.parametrize("keep_alive", [0.2, 30.0])
def test_idle_connections_are_closed(keep_alive, serving):
    with (
        serving(slots=1, keep_alive=keep_alive) as server,
        _connect(server) as new,
        _connect(server) as used,
    ):
        for _ in range(2):
            used.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert _answer(used)[0] == 200
        for connection in (new, used):
            if keep_alive < 1:
                assert _closed(connection)
            else:
                connection.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    connection.recv(1)


@pytest.mark.parametrize("answered", [False, True])
def test_a_head_that_does_not_end(answered, serving, monkeypatch):
    """However often a few more of its bytes come."""
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.4)
    with serving(slots=1) as server, _connect(server) as connection:
        if answered:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert _answer(connection)[0] == 200
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        begun = time.monotonic()
        for _ in range(6):
            connection.sendall(b"x: y\r\n")
            time.sleep(0.05)
        status, told = _answer(connection)
        assert (status, "0.4 s" in json.loads(told)["error"]["message"]) == (408, True)
        assert 0.3 < time.monotonic() - begun < 10
        assert _closed(connection)


def test_who_reads_nothing_is_left(serving, monkeypatch):
    monkeypatch.setattr(connections, "_STALLED_SECONDS", 0.2)
    ask = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500  # pages of many kilobytes
    with serving(slots=1) as server, _connect(server) as connection:
        with contextlib.suppress(OSError):
            connection.settimeout(5)
            for _ in range(20):
                connection.sendall(ask)
        server.until(lambda: not server.connections)


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        ("Content-Length: 20000000\r\n\r\n" + " " * 20_000_000, 413),
        ("Transfer-Encoding: chunked\r\n\r\n" + f"100000\r\n{' ' * 0x100000}\r\n" * 20, 413),
        ("Content-Encoding: gzip\r\nContent-Length: 20000000\r\n\r\n" + " " * 20_000_000, 415),
        ("X: " + "y" * 5_000_000, 431),
        ("Transfer-Encoding: chunked\r\n\r\nno number\r\n" + " " * 5_000_000, 400),
    ],
)  # fmt: skip
def test_who_sends_much_hears_the_answer(rest, status, server):
    with _connect(server) as connection:
        connection.sendall(f"{HEAD}{rest}".encode())
        found, told = _answer(connection)
        assert found == status
        assert json.loads(told)["error"]["message"]


@pytest.mark.parametrize(
    ("head", "status", "message"),
    [
        ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", 400, "content-length: not with"),
        ("Content-Type: application/json\r\nContent-Length: 0\r\n", 400, "content-type: expected"),
        ("Content-Length: 5\r\nContent-Length: 0\r\n", 400, "conflicting Content-Length"),
        ("Host: localhost\r\n", 400, "multiple Host"),
        ("Transfer-Encoding: gzip\r\n", 501, "Only Transfer-Encoding: chunked"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(head, status, message, server):
    """And what follows on the connection is no request."""
    smuggled = "0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with _connect(server) as connection:
        connection.sendall(f"{HEAD}{head}\r\n{smuggled}".encode())
        found, told = _answer(connection)
        assert found == status
        assert message in json.loads(told)["error"]["message"]
        assert _closed(connection)
