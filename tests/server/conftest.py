"""Servers over real connections, each in a thread of the tests' own process."""

import contextlib
import dataclasses
import http.client
import json
import socket
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from hrm_jax.data.text.tokenizers import ByteTokenizer
from hrm_jax.engine.decoder import Decoder
from hrm_jax.models.transformer import Transformer, TransformerConfig
from hrm_jax.server.options import Options
from hrm_jax.server.process import Server, bind

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


class Running:
    """A server that runs in a thread, and what tests do with it."""

    def __init__(self, server):
        self.engine, self.url, self.stop = server.engine, server.url, server.stop
        self.connections = server._uvicorn.server_state.connections
        self._results = []
        self._thread = threading.Thread(
            target=lambda: self._results.append(server.run()), daemon=True
        )
        self._thread.start()
        self.until(lambda: server.started)

    def result(self):
        """What `Server.run` has returned, when it has ended."""
        self._thread.join(60)
        (result,) = self._results
        return result

    @staticmethod
    def until(condition):
        for _ in range(6000):
            if condition():
                return
            time.sleep(0.01)
        raise TimeoutError("it did not happen within a minute")

    def client(self, **options):
        """OpenAI's own."""
        import openai

        options = {"api_key": "none", "max_retries": 0, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)

    def call(self, path, body=None, method=None, **headers):
        """Status, headers and decoded body of one request."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        with contextlib.closing(connection):
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            headers = {k.replace("_", "-"): v for k, v in headers.items()}
            headers = {"Content-Type": "application/json", **headers}
            connection.request(method or ("GET" if body is None else "POST"), path, data, headers)
            response = connection.getresponse()
            text = response.read().decode()
        is_json = response.headers["content-type"] == "application/json"
        return response.status, response.headers, json.loads(text) if is_json else text

    def connect(self, headers):
        """A connection on which a completion is asked for, as far as these headers and a body."""
        host, port = self.url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=60)
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        connection.sendall(f"{head}\r\n{headers}".encode())
        return connection

    @contextlib.contextmanager
    def slowed(self, seconds=0.05, hold=None):
        """Lets each round of the engine take longer, or wait for `hold`."""
        engine, step = self.engine, self.engine.step

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


@pytest.fixture(scope="session")
def decoder():
    """A model that says small letters at random."""
    params = jax.jit(Transformer(CONFIG).init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    never = tuple(x for x in range(260) if not 97 <= x < 123)
    return Decoder(CONFIG, params["params"], Endless(), suppressed=never, name="tiny")


@pytest.fixture(scope="session")
def serving(decoder):
    """Runs a server of that model in a thread, and ends it."""

    @contextlib.contextmanager
    def run(changes=None, **options):
        served = dataclasses.replace(decoder, **(changes or {}))
        if not served.adapters:
            vars(served)["programs"] = decoder.programs  # the changes are none of the model
        options = Options(**options)
        with bind(port=0, api_key=options.api_key) as listener:
            server = Running(Server(served, listener, options, "warning"))
            try:
                yield server
            finally:
                server.stop()
                server.stop()
                server.result()

    return run


@pytest.fixture(scope="session")
def server(serving):
    """One that tests share."""
    with serving(slots=2, max_queue=4, max_tokens=200, max_body=20_000) as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    return server.client()
