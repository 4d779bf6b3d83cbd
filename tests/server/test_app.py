"""The queue, keys, figures, clients that leave, and an engine that fails."""

import json
import threading
import types

import pytest

openai = pytest.importorskip("openai", reason="openai is not installed")


def test_a_full_queue_gives_429(serving):
    hold = threading.Event()
    with serving(slots=1, max_queue=2) as server, server.slowed(0, hold):
        client = server.client()
        answers = []

        def ask():
            answers.append(client.completions.create(model="tiny", prompt="x", max_tokens=2))

        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        server.until(lambda: server.engine.stats.waiting == 2)
        status, headers, answer = server.call("/v1/completions", {"prompt": "x"})
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
        assert server.client().completions.create(model="tiny", prompt="x").usage.total_tokens == 18


def test_a_key_is_asked_for(serving):
    with serving(slots=1, api_key="sésame") as server:
        for path in ("/v1/models", "/metrics", "/v1/nothing"):
            status, headers, answer = server.call(path)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert answer["error"]["code"] == "invalid_api_key"
        for path in ("/health", "/"):
            assert server.call(path)[0] == 200
        with pytest.raises(openai.AuthenticationError):
            server.client(api_key="sesame").models.list()
        key = "sésame".encode().decode("latin-1")  # as its bytes
        assert server.call("/v1/models", Authorization=f"bearer {key}")[0] == 200
        assert server.call("/v1/models", Authorization=f"Basic {key}")[0] == 401


def test_figures(serving):
    with serving(slots=1) as server:
        client = server.client()
        client.completions.create(model="tiny", prompt="abc", max_tokens=5)
        list(client.completions.create(model="tiny", prompt="abc", max_tokens=5, stream=True))
        server.call("/v1/chat/completions", {})
        assert server.call("/health")[2] == {"status": "ok", "running": 0, "waiting": 0}
        status, headers, text = server.call("/metrics")
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
        for line in (
            'hrm_jax_requests_total{endpoint="/v1/completions",outcome="ok"} 2.0',
            'hrm_jax_requests_total{endpoint="/v1/chat/completions",outcome="refused"} 1.0',
            'hrm_jax_tokens_total{kind="prompt"} 8.0',
            'hrm_jax_tokens_total{kind="generated"} 10.0',
            'hrm_jax_tokens_total{kind="cached"} 0.0',
            'hrm_jax_tokens_total{kind="guessed"} 0.0',
            'hrm_jax_answers_total{reason="length"} 2.0',
            "hrm_jax_running 0.0",
            "hrm_jax_waiting 0.0",
            "hrm_jax_time_to_first_token_seconds_count 2.0",
            "hrm_jax_generation_seconds_count 2.0",
        ):
            assert f"\n{line}\n" in text


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(stream, serving):
    with serving(slots=1) as server, server.slowed(0.1):
        body = json.dumps({"prompt": "x", "max_tokens": 255, "stream": stream})
        with server.connect(f"Content-Length: {len(body)}\r\n\r\n{body}") as connection:
            if stream:
                assert b"200 OK" in connection.recv(100)
            server.until(lambda: server.engine.stats.running == 1)
        server.until(lambda: server.engine.stats.finished.get("cancelled") == 1)
        assert server.engine.stats.running == 0
        outcome = 'hrm_jax_requests_total{endpoint="/v1/completions",outcome="cancelled"} 1.0'
        server.until(lambda: outcome in server.call("/metrics")[2])


def test_a_failed_step_is_one_answers_end(serving, decoder, monkeypatch):
    with serving(slots=1) as server:
        client = server.client()
        with monkeypatch.context() as patch:
            broken = types.SimpleNamespace(feed=None)
            patch.setattr(decoder.tokenizer, "stream", lambda: broken)
            with pytest.raises(openai.InternalServerError, match="the engine failed") as error:
                client.completions.create(model="tiny", prompt="x")
        assert error.value.status_code == 500
        assert "NoneType" not in str(error.value)
        assert client.completions.create(model="tiny", prompt="x").usage.completion_tokens == 16
        assert server.call("/health")[0] == 200


class Crash(BaseException):
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_of_the_engine_is_told(serving):
    with serving(slots=1) as server, server.slowed():
        client = server.client()
        stream = client.completions.create(model="tiny", prompt="x", max_tokens=255, stream=True)
        next(stream)
        step = server.engine.step

        def crash():
            step()
            raise Crash

        server.engine.step = crash
        with pytest.raises(openai.APIError, match="the engine failed"):
            list(stream)
        server.until(lambda: server.call("/health")[0] == 503)
        assert server.call("/health")[2]["status"] == "failed"
        status, _, answer = server.call("/v1/completions", {"prompt": "x"})
        assert (status, answer["error"]["type"]) == (500, "server_error")
        server.stop()
        assert server.result() is False
