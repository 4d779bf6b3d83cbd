"""How the server serves."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Options:
    """Limits, and who may ask; `ValueError` names the value that is out of range."""

    api_key: str | None = None  # what clients must present; None asks for nothing
    slots: int = 8  # answers written at once
    max_queue: int = 64  # most answers that wait; more requests get 429
    max_tokens: int = 0  # most new tokens of an answer; 0 takes the model's length
    max_body: int = 1 << 20  # most bytes of a request
    drain_seconds: float = 30.0  # how long running answers may take after the first signal

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 0), ("max_body", 1), ("drain_seconds", 0)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if self.api_key == "":
            raise ValueError("api_key: expected at least one character")
