"""Requests before they are read: methods, hosts, bodies; and the page's headers."""

import http.client
import json
import re

import pytest

from hrm_jax.server import http as server_http
from hrm_jax.server.options import Options


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
        (
            "/v1/completions",
            {},
            {"Content_Type": "application/json; charset=utf-16"},
            415,
            "expected charset=utf-8, got 'utf-16'",
        ),
        ("/v1/completions", {}, {"Content_Encoding": "gzip"}, 415, "^content-encoding: .* 'gzip'"),
        ("/v1/completions", b'{"x": ' + b"9" * 5000 + b"}", {}, 400, "number out of range"),
        ("/v1/completions", b'{"prompt": "x", "\\ud800": 1}', {}, 400, "not valid JSON"),
        ("/v1/completions", b'{"prompt": "x", "temperature": 1e999}', {}, 400, "^temperature: "),
        ("/v1/" + "x" * 5000, None, {}, 404, "^GET /v1/x{196}: Not Found"),
        ("/v1/models/" + "x" * 5000, None, {}, 404, "^model: there is no 'x{99}…; expected 'tiny'"),
        ("/v1/completions", {"prompt": "x", "model": "gpt"}, {}, 404, "there is no 'gpt'"),
        ("/v1/completions", None, {}, 405, "GET /v1/completions: Method Not Allowed"),
        ("/v1/embeddings", {}, {}, 404, "POST /v1/embeddings: Not Found"),
        ("/v1/completions", b" " * 20_001, {}, 413, "larger than 20000 bytes"),
        ("/v1/models", None, {"Host": "evil.example"}, 403, "expected localhost or a loopback"),
        ("/", None, {"Host": "127.0.0.1.evil.example:80"}, 403, "expected localhost"),
    ],
)
def test_a_bad_request_is_told_in_openais_form(path, body, headers, status, message, server):
    found, _, answer = server.call(path, body, **headers)
    assert found == status
    assert re.search(message, answer["error"]["message"])
    assert set(answer["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.2", "[::1]:80"])
def test_loopback_hosts(host, server):
    assert server.call("/v1/models", Host=host)[0] == 200


def test_hosts_of_a_proxy(serving):
    """With a key any host will do, for a page of another origin does not know it."""
    with serving(slots=1, allowed_hosts=("chat.example.org",)) as server:
        for host, status in (
            ("chat.example.org", 200),
            ("Chat.Example.org.:443", 200),
            ("localhost", 200),
            ("evil.chat.example.org", 403),
            ("chat.example.org.evil.example", 403),
            ("[", 403),
        ):
            assert server.call("/v1/models", Host=host)[0] == status
            assert server.call("/health", Host=host)[0] == 200
    with serving(slots=1, api_key="key") as server:
        for host in ("chat.example.org", "["):
            assert server.call("/v1/models", Host=host, Authorization="Bearer key")[0] == 200
            assert server.call("/v1/models", Host=host)[0] == 401
            assert server.call("/health", Host=host)[0] == 200
            assert server.call("/nothing", Host=host, Authorization="Bearer key")[0] == 404


@pytest.mark.parametrize("name", ["https://chat.example.org", "a b", "", "*"])
def test_allowed_hosts_are_names(name):
    with pytest.raises(ValueError, match="allowed_hosts: expected names such as"):
        Options(allowed_hosts=(name,))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/models/", "list"),
        ("//v1//models", "list"),
        ("/v1/models/tiny", "model"),
        ("/v1/models/tiny/", "model"),
    ],
)
def test_slashes(path, kind, server):
    status, _, answer = server.call(path)
    assert (status, answer["object"]) == (200, kind)
    assert server.call("/v1/completions/", {"prompt": "x", "max_tokens": 1})[0] == 200


def test_a_body_is_limited_while_it_is_read(server):
    body = f"{20_001:x}\r\n{' ' * 20_001}\r\n"  # which goes on
    with server.connect(f"Transfer-Encoding: chunked\r\n\r\n{body}") as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert json.loads(answer.read())["error"]["code"] == "body_too_large"


def test_a_body_that_never_comes(server, monkeypatch):
    monkeypatch.setattr(server_http, "_BODY_SECONDS", 0.1)
    with server.connect("Content-Length: 10\r\n\r\n{") as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 408


def test_the_page_may_do_nothing_else(server):
    status, headers, page = server.call("/")
    policy = headers["content-security-policy"]
    assert (status, "default-src 'none'" in policy) == (200, True)
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert "innerHTML" not in page
