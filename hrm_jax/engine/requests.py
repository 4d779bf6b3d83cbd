"""Requests to the engine as callers see them, and the text of their answers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Literal

import numpy as np

from hrm_jax.data.text.tokenizers import Tokenizer

FinishReason = Literal["stop", "length", "cancelled"]


class RequestError(ValueError):
    """A request that cannot be served as it is."""


class PromptTooLong(RequestError):
    """A prompt that leaves no room for an answer."""


class QueueFull(RuntimeError):
    """More requests wait than the engine takes; try again later."""


def checked_tokens(field: str, tokens: Iterable[Any], vocabulary: int) -> list[int]:
    """The tokens, of any whole type; `RequestError`, which names the field, where one is none of
    the model's."""
    checked = []
    for token in tokens:
        whole = isinstance(token, int | np.integer) and not isinstance(token, bool)
        if not whole or not 0 <= token < vocabulary:
            raise RequestError(f"{field}: expected tokens in [0, {vocabulary}), got {token!r:.100}")
        checked.append(int(token))
    return checked


@dataclasses.dataclass(frozen=True)
class Event:
    """A token of an answer, and what is certain of the text now: nothing while a character, or what
    may be a stop text, is incomplete. An answer ends with an end token or stop text ("stop"), no
    room or no more tokens asked for ("length"), or "cancelled"."""

    token: int  # -1 in the last event of a cancelled request
    text: str
    logprob: float  # under the model, before penalty, temperature and cuts
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens, as many as were asked for
    finish_reason: FinishReason | None = None  # None if it goes on
    is_end: bool = False  # a token that ends answers, and is no part of the text


@dataclasses.dataclass(frozen=True)
class Completion:
    """A whole answer; `tokens` has what ended it, `text` does not."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    top: tuple[tuple[tuple[int, float], ...], ...]
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int = 0  # of the prompt, that were read for another request


@dataclasses.dataclass
class Times:
    """Moments of a request (`time.monotonic`); None if they have not come."""

    submitted: float = dataclasses.field(default_factory=time.monotonic)
    started: float | None = None  # left the queue
    first: float | None = None  # its first token was made
    ended: float | None = None  # its last event was made


class Handle:
    """A request that was taken. Its events can be iterated from any thread or event loop, several
    times, each from the first on. Without the engine's background thread, iterating (and `result`)
    does the engine's work; `async for` starts that thread."""

    def __init__(self, engine: Any, id: str, prompt_tokens: int) -> None:
        self.id = id  # unique in the engine
        self.prompt_tokens = prompt_tokens  # that the model is fed
        self.cached_tokens = 0  # of these, read for another request; known once it has started
        self.times = Times()
        self.cancelled = False
        self._engine = engine  # the `Engine`, whose module needs this one
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._error: BaseException | None = None
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def finished(self) -> bool:
        with self._changed:
            ended = bool(self._events) and self._events[-1].finish_reason is not None
            return ended or self._error is not None

    def cancel(self) -> None:
        """Ends the request soon; without effect on one that has ended."""
        self.cancelled = True
        self._engine.wake()

    def result(self) -> Completion:
        """Waits for the whole answer; `RuntimeError` where the engine failed."""
        events = list(self)
        tokens = [event for event in events if event.token >= 0]
        reason = events[-1].finish_reason
        assert reason is not None
        return Completion(
            text="".join(event.text for event in events),
            tokens=tuple(event.token for event in tokens),
            logprobs=tuple(event.logprob for event in tokens),
            top=tuple(event.top for event in tokens),
            finish_reason=reason,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
        )

    def __iter__(self) -> Iterator[Event]:
        read = 0
        while True:
            with self._changed:
                new, finished = self._events[read:], self.finished
                if not new and not finished and self._engine.running:
                    self._changed.wait()
                    continue
            read += len(new)
            yield from new
            if finished:
                self._raise()
                return
            if not new:
                self._engine.step()

    async def __aiter__(self) -> AsyncIterator[Event]:
        self._engine.start()
        arrived = asyncio.Event()
        waiter = (asyncio.get_running_loop(), arrived)
        with self._changed:
            self._waiting.add(waiter)
        read = 0
        try:
            while True:
                arrived.clear()
                with self._changed:
                    new, finished = self._events[read:], self.finished
                read += len(new)
                for event in new:
                    yield event
                if finished:
                    self._raise()
                    return
                if not new:
                    await arrived.wait()
        finally:
            with self._changed:
                self._waiting.discard(waiter)

    def publish(self, events: list[Event], error: BaseException | None = None) -> None:
        """Adds events, or the error that ends the request; for the engine."""
        with self._changed:
            self._events += events
            self._error = error
            self._changed.notify_all()
            for loop, arrived in self._waiting:
                with contextlib.suppress(RuntimeError):  # the loop was closed
                    loop.call_soon_threadsafe(arrived.set)

    def _raise(self) -> None:
        if self._error is not None:
            raise RuntimeError(f"{self.id}: the engine failed: {self._error}") from self._error


class AnswerText:
    """Turns an answer's tokens into text, up to the first stop text."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        self._stream = tokenizer.stream()
        self._stop = stop
        self._held = ""

    def feed(self, token: int) -> tuple[str, bool]:
        """Returns the text that is certain now, and whether a stop text has come."""
        self._held += self._stream.feed([token])
        return self._release(self._begun())

    def finish(self) -> tuple[str, bool]:
        """Returns what was held back, and whether a stop text was in it."""
        self._held += self._stream.finish()
        return self._release(0)

    def _release(self, keep: int) -> tuple[str, bool]:
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            text, self._held = self._held[: min(found)], ""
            return text, True
        end = len(self._held) - keep
        text, self._held = self._held[:end], self._held[end:]
        return text, False

    def _begun(self) -> int:
        """How many of the last characters may be the beginning of a stop text."""
        for size in range(min(len(self._held), max(map(len, self._stop), default=0) - 1), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stop):
                return size
        return 0
