"""How the server serves."""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Options:
    """Limits, and who may ask; `ValueError` names the value that is out of range."""

    api_key: str | None = None  # what clients must present; None asks for nothing
    slots: int = 8  # answers written at once
    max_queue: int = 64  # most answers that wait; more requests get 429
    prefix_cache: int = 4  # prompts whose keys and values are kept for others that begin alike
    speculate: int = 0  # tokens that are guessed ahead, as they came before in the same text
    max_tokens: int = 0  # most new tokens of an answer; 0 takes the model's length
    max_body: int = 1 << 20  # most bytes of a request
    drain_seconds: float = 30.0  # how long running answers may take after the first signal
    keep_alive: float = 75.0  # seconds that an idle connection is kept; clients keep theirs for 60
    max_connections: int = 1000  # at once, or fewer where this process may open fewer files
    allowed_hosts: tuple[str, ...] = ()  # names to be reached by, besides those of this machine

    def __post_init__(self) -> None:
        for name, least in (
            ("max_tokens", 0),
            ("max_body", 1),
            ("drain_seconds", 0),
            ("keep_alive", 0),
            ("max_connections", 1),
        ):
            value = getattr(self, name)
            if not value >= least:  # nor NaN
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if self.api_key == "":
            raise ValueError("api_key: expected at least one character")
        for name in self.allowed_hosts:
            if not re.fullmatch(r"[\w.:\[\]-]+", name):
                raise ValueError(
                    f"allowed_hosts: expected names such as chat.example.org, got {name!r}"
                )
