"""Scripts in processes that are forked from one that has imported the library: no time to import.

Each runs as if its name had been typed, with JAX not yet started.
"""

import multiprocessing
import os
import pathlib
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["forked_imports"])


class Done(NamedTuple):
    """How a script ended."""

    returncode: int
    stdout: str
    stderr: str


class Script:
    """A script that runs."""

    def __init__(
        self,
        argv: Sequence[object],
        *,
        environment: Mapping[str, str] | None = None,
        text: str = "",
    ) -> None:
        """Starts `argv[0]` in the current folder, with `text` as its input."""
        self._files = tempfile.TemporaryDirectory(prefix="forked_")
        folder = pathlib.Path(self._files.name)
        self._paths = [folder / name for name in ("stdin", "stdout", "stderr")]
        for path in self._paths:
            path.write_text(text if path.name == "stdin" else "")
        self.process = _FORKS.Process(
            target=_run,
            args=(
                [str(x) for x in argv],
                os.getcwd(),
                dict(os.environ if environment is None else environment),
                [str(path) for path in self._paths],
            ),
        )
        self.process.start()

    def wait(self, timeout: float = 300) -> Done:
        """Waits for its end."""
        self.process.join(timeout)
        code = self.process.exitcode
        assert code is not None, f"still running after {timeout} s: {self.said()}"
        return Done(code, *self.said())

    def said(self) -> tuple[str, str]:
        """What it has written so far to stdout and stderr."""
        return self._paths[1].read_text(), self._paths[2].read_text()


def run(argv: Sequence[object], **options: object) -> Done:
    """Runs a script to its end; see `Script`."""
    return Script(argv, **options).wait()


def _run(argv: list[str], folder: str, environment: dict[str, str], files: list[str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate(files):
        file = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has put /dev/null there
    sys.argv = argv
    sys.path.insert(0, str(pathlib.Path(argv[0]).resolve().parent))
    runpy.run_path(argv[0], run_name="__main__")
