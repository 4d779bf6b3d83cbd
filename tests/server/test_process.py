"""Addresses, draining, signals, and launch/serve.py."""

import fcntl
import importlib.util
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import pytest

import hrm_jax
from hrm_jax.server.options import Options
from hrm_jax.server.process import Server, bind

openai = pytest.importorskip("openai", reason="openai is not installed")

SERVE = pathlib.Path(__file__).parents[2] / "launch" / "serve.py"


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_others_cannot_reach_it_without_a_key(host):
    with pytest.raises(ValueError, match=r"^host: "):
        bind(host, 0)
    with bind("0.0.0.0", 0, "key") as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_it_finishes_what_runs(serving):
    with serving(slots=1) as server, server.slowed():
        stream = server.client().completions.create(
            model="tiny", prompt="x", max_tokens=100, stream=True
        )
        chunks = [next(stream)]
        server.stop()
        server.until(lambda: server.call("/health")[0] == 503)
        assert server.call("/health")[2]["status"] == "draining"
        status, headers, answer = server.call("/v1/completions", {"prompt": "x"})
        assert (status, answer["error"]["code"]) == (503, "draining")
        assert headers["retry-after"] == "5"
        chunks += stream
        assert len("".join(chunk.choices[0].text for chunk in chunks)) == 100
        assert server.result() is True
        with pytest.raises(OSError, match="refused"):
            server.call("/health")


def test_it_does_not_wait_for_ever(serving):
    with serving(slots=1, drain_seconds=0.1) as server, server.slowed(0.2):
        stream = server.client().completions.create(
            model="tiny", prompt="x", max_tokens=255, stream=True
        )
        next(stream)
        server.stop()
        with pytest.raises(openai.APIError, match="shutting down"):
            list(stream)
        assert server.result() is True
        assert server.engine.stats.finished == {"cancelled": 1}


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


def test_ctrl_c_drains_too(decoder):
    chunks = []

    def ask():
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=5)
        stream = client.completions.create(model="tiny", prompt="x", max_tokens=60, stream=True)
        chunks.append(next(stream))
        os.kill(os.getpid(), signal.SIGINT)
        chunks.extend(stream)

    with bind(port=0) as listener:
        server = Server(decoder, listener, Options(slots=1), "warning")
        asker = threading.Thread(target=ask)
        asker.start()
        assert server.run() is True
        asker.join(60)
    assert len("".join(chunk.choices[0].text for chunk in chunks)) == 60


@pytest.mark.slow
def test_sigterm_drains_the_script_on_two_devices(language_run, child):
    flags = [f"--workdir={language_run}", "--port=0", "--drain_seconds=300", "--devices=2"]
    with subprocess.Popen(
        [sys.executable, SERVE, *flags],
        stdout=subprocess.PIPE,
        text=True,
        env={**child(), "XLA_FLAGS": ""},
    ) as process:
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        try:
            name, url = re.fullmatch(r"(\w+) at (http://\S+)\n", process.stdout.readline()).groups()
            assert name == "run"
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=5)
            stream = client.completions.create(
                model="run", prompt="abc", max_tokens=120, temperature=0, stream=True
            )
            chunks = [next(stream)]
            for _ in range(100):  # more lines in the log than the pipe, which nobody reads, takes
                client.models.list()
            process.terminate()
            chunks += stream
            assert chunks[-1].choices[0].finish_reason in ("length", "stop")
            assert process.wait(300) == 0
        finally:
            process.kill()


@pytest.fixture
def run_script(capsys, monkeypatch):
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # it would stay
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
        (["--keep_alive=-1"], "keep_alive: expected at least 0, got -1.0"),
        (["--keep_alive=nan"], "keep_alive: expected at least 0, got nan"),
        (["--max_connections=0"], "max_connections: expected at least 1, got 0"),
        (["--allowed_hosts=a.org, https://b.org"], "allowed_hosts: expected names such as"),
        (["--slots=0"], "slots: expected at least 1"),
        (["--devices=0"], "devices: expected 1 to"),
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


def test_a_port_that_is_taken(run_script):
    with bind(port=0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        code, _, error = run_script("--workdir=any", f"--port={port}")
    assert code == 2
    assert f"port: 127.0.0.1:{port} cannot be bound: Address already in use" in error


def test_a_run_of_puzzles(run_script, trained):
    code, _, error = run_script(f"--workdir={trained}", "--port=0")
    assert code == 2
    assert error == f"error: {trained}: not the run of a language model, which this takes\n"
