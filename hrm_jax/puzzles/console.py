"""A person at a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


class Leave(Exception):
    """The person wants to leave, or there is no more input."""


@dataclasses.dataclass
class Console:
    """Streams of text where a person types and reads; `ansi` if the output takes ANSI codes."""

    input: Any
    output: Any
    ansi: bool = False

    def say(self, text: str = "") -> None:
        """Writes a line, or lines."""
        print(text, file=self.output, flush=True)

    def ask(self, prompt: str, help_text: str) -> str:
        """Reads a line; answers `help` by itself, and raises `Leave` at `quit` or the end."""
        while True:
            print(prompt, end="", file=self.output, flush=True)
            line = self.input.readline()
            word = line.strip().lower()
            if not line or word in ("quit", "q", "exit"):
                raise Leave
            if word not in ("help", "h", "?"):
                return line.rstrip("\r\n")
            self.say(help_text)


def converse(console: Console, talk: Callable[[], object]) -> None:
    """Runs `talk`, and ends politely where the person leaves or presses Ctrl-C."""
    try:
        talk()
    except (Leave, KeyboardInterrupt):
        console.say("\nBye.")
