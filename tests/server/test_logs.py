"""Log lines into pipes that nobody reads."""

import fcntl
import io
import logging
import os

import pytest

from hrm_jax.server.logs import LossyHandler


def _record(message):
    return logging.LogRecord("x", logging.INFO, "x.py", 1, message, (), None)


def test_a_full_pipe_is_not_waited_for():
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 8192)
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb", buffering=0) as reader:
        handler = LossyHandler(stream)
        for number in range(size // 100 + 50):
            handler.emit(_record(f"{number} {'x' * 200}"))
        read = reader.read(size).decode()
        handler.emit(_record("later"))
        handler.emit(_record("and later"))
        more = read + reader.read(size).decode()
    assert read.startswith("0 xxx")
    kept = read.count("\n")
    assert 0 < kept < size // 200
    assert f"\n({size // 100 + 50 - kept} lines of the log were left out)\nlater\nand" in more


def test_a_reader_that_is_gone(capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        LossyHandler(stream).emit(_record("nobody hears"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("line", ["x" * 10_000, "lone \ud800"])
def test_lines_of_all_kinds(line, tmp_path):
    with open(tmp_path / "log", "w") as stream:
        LossyHandler(stream).emit(_record(line))
    assert (tmp_path / "log").read_text() == line.replace("\ud800", "\\ud800") + "\n"
    if line.isascii():
        memory = io.StringIO()  # has no file
        LossyHandler(memory).emit(_record(line))
        assert memory.getvalue() == line + "\n"
