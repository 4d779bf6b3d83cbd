"""Generates for many requests at once: they join and leave a running batch between its steps.

Requests stand in the rows of a batch whose size, and room for positions, are about the smallest of
a few that hold them (`hrm_jax.inference.slots`). A prompt is read in chunks; between two chunks (or
a few, where many wait) the others take a step, so that a long prompt does not hold them up. Where
nobody waits, several steps are one call of the device.

A request's tokens depend on its prompt, its `Sampling` and the model only. The draws are the same
whoever else is served; logits are the same up to rounding, since a batch of another shape may add
numbers in another order (float32: about 1e-6).

References:
    Yu et al., Orca (OSDI 2022), for scheduling by steps; Kwon et al., vLLM
    (https://arxiv.org/abs/2309.06180).
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hrm_jax.inference.decoder import Decoder
from hrm_jax.inference.requests import (
    AnswerText,
    Completion,
    Event,
    FinishReason,
    Handle,
    QueueFull,
    RequestError,
)
from hrm_jax.inference.sampling import Choice, Sampling
from hrm_jax.inference.slots import MAX_STEPS, Programs, shape_of, window_of
from hrm_jax.models.transformer import Cache

__all__ = [
    "Completion",
    "Engine",
    "Event",
    "Handle",
    "QueueFull",
    "RequestError",
    "Sampling",
    "Stats",
]

_SMALLEST_WINDOW = 64
_ROOM = 64  # new tokens that a batch is given room for when it is moved
_WORTH_MOVING = 16  # steps to go, for a smaller batch


@dataclasses.dataclass(frozen=True)
class Stats:
    """What an engine has done since it was made.

    Attributes:
        running: Requests that are being served.
        waiting: Requests in the queue.
        finished: Requests that have ended, by reason: those of `Event`, and "error".
        prompt_tokens: Tokens read.
        generated_tokens: Tokens made.
        compilations: How often each program was compiled, by its name and shape.
        queue_seconds: Time in the queue, all requests that left it together.
        first_token_seconds: Time from submission to the first token, all together.
        total_seconds: Time from submission to the end, all together.
    """

    running: int
    waiting: int
    finished: Mapping[str, int]
    prompt_tokens: int
    generated_tokens: int
    compilations: Mapping[str, int]
    queue_seconds: float
    first_token_seconds: float
    total_seconds: float


@dataclasses.dataclass(eq=False)
class _Request:
    """A request on its way through the engine; `left` and `position` are those of its row."""

    handle: Handle
    tokens: list[int]
    added: np.ndarray | None
    sampling: Sampling
    stops: list[int]
    text: AnswerText
    left: int
    read: int = 0  # tokens of the prompt in the cache

    @property
    def position(self) -> int:
        return len(self.tokens) - 1 + self.made

    made: int = 0


class Engine:
    """Serves requests with continuous batching; see the module.

    Attributes:
        decoder: What it generates from.
        slots: Most requests served at once.
        max_length: Most tokens of a prompt and its answer together.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        slots: int = 8,
        max_length: int = 0,
        prefill_chunk: int = 64,
        max_queue: int = 256,
    ) -> None:
        """Puts the weights on the device; programs are compiled when they are first needed.

        Args:
            decoder: What to generate from.
            slots: Most requests served at once.
            max_length: Most tokens of a prompt and its answer together; 0 takes the model's.
            prefill_chunk: Tokens of a prompt that are read at once.
            max_queue: Most requests that wait.

        Raises:
            ValueError: A value is out of range; names it.
        """
        limit = decoder.config.max_length
        for name, value, most in (
            ("slots", slots, None),
            ("max_length", max_length or limit, limit),
            ("prefill_chunk", prefill_chunk, None),
            ("max_queue", max_queue, None),
        ):
            if value < 1 or (most is not None and value > most):
                expected = "at least 1" + (f" and at most {most}" if most else "")
                raise ValueError(f"{name}: expected {expected}, got {value}")
        if decoder.config.max_length < 2 or not decoder.config.causal:
            raise ValueError("decoder: expected a causal model of at least 2 positions")
        self.decoder = decoder
        self.slots = slots
        self.max_length = max_length or limit
        self._chunk = min(prefill_chunk, self.max_length)
        self._max_queue = max_queue
        self._programs = Programs(decoder.config, decoder.params, decoder.suppressed)
        self._sizes = _row_sizes(slots)

        # The queue, counts and thread are guarded by `_mutex`; the batch belongs to who holds
        # `_stepping`. Nobody waits for `_stepping` while holding `_mutex`.
        self._mutex = threading.Condition()
        self._queue: collections.deque[_Request] = collections.deque()
        self._ids = itertools.count(1)
        self._thread: threading.Thread | None = None
        self._closing = False
        self._draining = False
        self._woken = False
        self._finished: collections.Counter[str] = collections.Counter()
        self._counts: collections.Counter[str] = collections.Counter()
        self._seconds = {"queue": 0.0, "first": 0.0, "total": 0.0}

        self._stepping = threading.RLock()
        self._rows = self._programs.empty_rows(self._sizes[0], _SMALLEST_WINDOW)
        self._spare: Cache | None = None  # of the largest batch so far, to be used again
        self._served: list[_Request | None] = [None] * self._sizes[0]  # one for each row
        self._entering: tuple[_Request, Cache] | None = None  # whose prompt is being read

    # Callers' side

    def submit(self, prompt: str | Sequence[int], sampling: Sampling | None = None) -> Handle:
        """Takes a request into the queue; any thread may call.

        An answer ends with "length" where prompt and answer together reach `max_length`.

        Args:
            prompt: Text, or tokens without special ones.
            sampling: How tokens are chosen.

        Raises:
            RequestError: The prompt is empty and the tokenizer has no first token, is too long to
                leave room for an answer, or has tokens that the model does not have.
            QueueFull: Too many requests wait.
        """
        sampling = sampling or Sampling()
        vocabulary = self.decoder.config.vocab_size
        ids = self.decoder.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        tokens, added = self.decoder.prepared([int(i) for i in ids])
        if not tokens:
            raise RequestError("prompt: empty, and the tokenizer has no token to begin with")
        if len(tokens) >= self.max_length:
            raise RequestError(
                f"prompt: expected at most {self.max_length - 1} tokens, so that an answer fits "
                f"into {self.max_length}, got {len(tokens)}"
            )
        for where, token in [
            *(("prompt", token) for token in tokens),
            *(("stop_tokens", token) for token in sampling.stop_tokens),
        ]:
            if not 0 <= token < vocabulary:
                raise RequestError(f"{where}: expected tokens in [0, {vocabulary}), got {token}")
        stops = list(sampling.stop_tokens)
        if self.decoder.tokenizer.eos_id is not None and not sampling.ignore_eos:
            stops.append(self.decoder.tokenizer.eos_id)
        with self._mutex:
            if self._closing or self._draining:
                raise RequestError("the engine is closing")
            if len(self._queue) >= self._max_queue:
                raise QueueFull(f"{len(self._queue)} requests wait already, no more are taken")
            request = _Request(
                Handle(self, f"request-{next(self._ids)}", len(tokens)),
                tokens,
                added,
                sampling,
                stops,
                AnswerText(self.decoder.tokenizer, tuple(sampling.stop)),
                left=min(sampling.max_new_tokens, self.max_length - len(tokens)),
            )
            self._queue.append(request)
            self._mutex.notify_all()
        return request.handle

    def generate(self, prompt: str | Sequence[int], **sampling: Any) -> Completion:
        """Serves one request and waits for it; arguments as those of `Sampling`."""
        return self.submit(prompt, Sampling(**sampling)).result()

    def batch_generate(
        self, prompts: Sequence[str | Sequence[int]], **sampling: Any
    ) -> list[Completion]:
        """Serves any number of requests and waits for them; answers in the order of the prompts.

        All take the same `Sampling`, the seed too.
        """
        options = Sampling(**sampling)
        handles: list[Handle] = []
        done = 0
        for prompt in prompts:
            while True:
                try:
                    handles.append(self.submit(prompt, options))
                    break
                except QueueFull:
                    if done == len(handles):  # the queue is full of others' requests
                        raise
                    handles[done].result()
                    done += 1
        return [handle.result() for handle in handles]

    async def stream(self, prompt: str | Sequence[int], **sampling: Any) -> AsyncIterator[Event]:
        """Serves one request, event by event; leaving the iteration early cancels it."""
        handle = self.submit(prompt, Sampling(**sampling))
        try:
            async for event in handle:
                yield event
        finally:
            handle.cancel()

    @property
    def stats(self) -> Stats:
        """What was done until now."""
        with self._mutex:
            started = self._counts["started"]
            return Stats(
                running=started - sum(self._finished.values()) + self._counts["unstarted"],
                waiting=len(self._queue),
                finished=dict(self._finished),
                prompt_tokens=self._counts["prompt"],
                generated_tokens=self._counts["generated"],
                compilations=dict(self._programs.compiled),
                queue_seconds=self._seconds["queue"],
                first_token_seconds=self._seconds["first"],
                total_seconds=self._seconds["total"],
            )

    # The background thread

    @property
    def running(self) -> bool:
        """Whether the background thread works."""
        return self._thread is not None

    def start(self) -> None:
        """Starts the thread that serves requests, if it does not run."""
        with self._mutex:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
                self._thread.start()

    def close(self, drain: bool = False) -> None:
        """Ends the background thread; no requests are taken any more.

        Args:
            drain: Whether requests that were taken are served first; else they are cancelled.
        """
        with self._mutex:
            self._draining = True
        if drain:
            while self.step() if not self.running else self._wait_until_idle():
                pass
        with self._mutex:
            self._closing = True
            thread = self._thread
            self._mutex.notify_all()
        if thread is not None:
            thread.join()
        with self._stepping:
            for request in self._all():
                request.handle.cancelled = True
            self._drop_cancelled()

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wake(self) -> None:
        """Makes the background thread look for requests that were cancelled."""
        with self._mutex:
            self._woken = True
            self._mutex.notify_all()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            for request in self._all():
                self._end(request, "error", [], error)
            raise
        finally:
            with self._mutex:
                self._thread = None
                self._mutex.notify_all()

    def _serve(self) -> None:
        while True:
            with self._mutex:
                self._mutex.wait_for(lambda: self._closing or self._woken or self._queue)
                self._woken = False
            while not self._closing and self.step():
                pass
            if self._closing:
                return
            with self._mutex:
                self._mutex.notify_all()  # whoever waits until nothing is left to do

    def _wait_until_idle(self) -> bool:
        with self._mutex:
            self._mutex.wait_for(lambda: self._thread is None or not self._all())
        return bool(self._all())

    # Rounds

    def step(self) -> bool:
        """One round: chunks of prompts, then a few steps of all that are being served.

        Returns:
            Whether something is left to do.
        """
        with self._stepping:
            try:
                self._drop_cancelled()
                self._enter()
                if any(self._served):
                    self._decode()
            except Exception as error:
                self._fail(error)
            return bool(self._all())

    def _all(self) -> list[_Request]:
        with self._mutex:
            entering = [self._entering[0]] if self._entering else []
            return [r for r in self._served if r is not None] + entering + list(self._queue)

    def _drop_cancelled(self) -> None:
        for request in self._all():
            if request.handle.cancelled:
                self._end(request, "cancelled", [Event(-1, "", 0.0, (), "cancelled")])

    def _enter(self) -> None:
        """Reads the next chunk of a prompt, or of a few; those that are read get a row.

        A step of a batch that is nearly empty takes as long as one of a full batch, so where many
        could join, they are read sooner.
        """
        with self._mutex:
            free = self.slots - sum(r is not None for r in self._served)
            chunks = max(1, min(len(self._queue) + 1, free) // 4)
        while chunks > 0:
            if self._entering is None and not self._call_next():
                return
            assert self._entering is not None
            request, cache = self._entering
            if request.read < len(request.tokens) - 1:
                cache = self._read(request, cache)
                self._entering = request, cache
                chunks -= 1
            if request.read == len(request.tokens) - 1:
                self._join(request, cache)

    def _call_next(self) -> bool:
        """Takes the next request from the queue, if there is one and a slot for it."""
        cache = self._programs.empty_cache(1, _SMALLEST_WINDOW)
        with self._mutex:
            if not self._queue or sum(r is not None for r in self._served) >= self.slots:
                return False
            request = self._queue.popleft()
            self._entering = request, cache
            request.handle.times.started = now = time.monotonic()
            self._counts["started"] += 1
            self._seconds["queue"] += now - request.handle.times.submitted
        return True

    def _read(self, request: _Request, cache: Cache) -> Cache:
        """Reads the next chunk of a prompt but its last token, which `decode` reads."""
        end = len(request.tokens) - 1
        small = -(-self._chunk // 4)
        size = small if end - request.read <= 2 * small else self._chunk
        # A chunk at the end of the model's length begins earlier and reads some tokens again.
        start = max(0, min(request.read, self.max_length - size))
        stop = min(end, start + size)
        tokens = np.zeros(size, np.int32)
        tokens[: stop - start] = request.tokens[start:stop]
        added = np.zeros((size, self.decoder.config.hidden_size), np.float32)
        if request.added is not None:
            added[: stop - start] = request.added[start:stop]
        if start + size > window_of(cache):
            cache = self._programs.widen(cache, 1 << (start + size - 1).bit_length())
        request.read = stop
        return self._programs.prefill(cache, tokens, start, added)

    def _join(self, request: _Request, cache: Cache) -> None:
        """Gives a request whose prompt was read a row."""
        with self._mutex:
            ahead = list(itertools.islice(self._queue, self.slots))
        size, window = len(self._served), self._window()
        served = sum(r is not None for r in self._served)
        if served == size:
            expected = min(self.slots, served + 1 + len(ahead))
            size = next(s for s in self._sizes if s >= expected)
        if len(request.tokens) > window or size > len(self._served):
            # With room for those who come next and for some tokens of each.
            needs = (len(r.tokens) + min(r.left, _ROOM) for r in [request, *ahead])
            window = max(window, _window(max(needs)))
        self._fit(size, window)
        row = self._served.index(None)
        last = np.zeros(self.decoder.config.hidden_size, np.float32)
        if request.added is not None:
            last = request.added[-1]
        self._rows = self._programs.join(
            self._rows, row, cache, request.tokens, request.left, last, request.stops,
            Choice.of(request.sampling),
        )  # fmt: skip
        self._served[row] = request
        self._entering = None
        with self._mutex:
            self._counts["prompt"] += len(request.tokens)

    def _decode(self) -> None:
        """Takes steps: one while prompts are read or first tokens are due, else several.

        Where others wait for a slot, no more than until one may be free.
        """
        served = [r for r in self._served if r is not None]
        with self._mutex:
            waiting = bool(self._queue)
        due = any(r.made == 0 for r in served)
        if due or self._entering is not None or (waiting and len(served) < self.slots):
            steps = 1
        elif waiting:
            steps = min(MAX_STEPS, min(r.left for r in served))
        else:
            steps = min(MAX_STEPS, max(r.left for r in served))
        self._make_room(served, steps, shrink=not waiting and self._entering is None)
        alive = np.array([r is not None for r in self._served])
        alternatives = any(r.sampling.logprobs > 0 for r in served)
        self._rows, made = self._programs.decode(self._rows, alive, steps, alternatives)
        made = jax.device_get(made)
        for row, request in enumerate(self._served):
            if request is not None:
                self._take(row, request, made)

    def _make_room(self, served: list[_Request], steps: int, shrink: bool) -> None:
        """Fits the batch to those served and the positions they may reach."""
        need = max(r.position + min(steps, r.left) for r in served)
        size, window = len(self._served), self._window()
        if need > window:
            window = _window(max(r.position + min(r.left, _ROOM) for r in served))
        if shrink and max(r.left for r in served) >= _WORTH_MOVING:
            smaller = next(s for s in self._sizes if s >= len(served))
            if smaller < size or _window(need) <= window // 2:
                size, window = smaller, _window(need)
        self._fit(size, window)

    def _window(self) -> int:
        return window_of(self._rows.cache)

    def _fit(self, size: int, window: int) -> None:
        """Moves what is served into the first rows of a batch of this shape, if it has another."""
        old = (len(self._served), self._window())
        if (size, window) == old:
            return
        room, self._spare = self._spare, None
        if room is None or shape_of(room) != (size, window):
            self._spare = room
            room = self._programs.empty_cache(size, window)
        source = [row for row, request in enumerate(self._served) if request is not None]
        served = [self._served[row] for row in source]
        free = size - len(source)
        left = self._rows.cache
        self._rows = self._programs.fit(self._rows, source + [-1] * free, room)
        self._served = served + [None] * free
        # New memory is slow, so that of the largest batch is kept for when many come again.
        kept = 0 if self._spare is None else math.prod(shape_of(self._spare))
        if math.prod(old) > max(size * window, kept):
            self._spare = left

    def _take(self, row: int, request: _Request, made: Any) -> None:
        """Hands a row's new tokens to its request."""
        events: list[Event] = []
        reason: FinishReason | None = None
        for step in range(MAX_STEPS):
            token = int(made.token[step, row])
            if token < 0 or reason is not None:
                break
            request.made += 1
            request.left -= 1
            text, stopped = "", token in request.stops
            if not stopped:
                text, stopped = request.text.feed(token)
            if stopped:
                reason = "stop"
            elif request.left == 0:
                reason = "length"
            if reason is not None:
                rest, stopped = request.text.finish()
                text, reason = text + rest, "stop" if stopped else reason
            count = max(request.sampling.logprobs, 0)
            ids, values = made.top[step, row, :count], made.top_logprob[step, row, :count]
            top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
            events.append(Event(token, text, float(made.logprob[step, row]), top, reason))
        times, now = request.handle.times, time.monotonic()
        with self._mutex:
            self._counts["generated"] += len(events)
            if times.first is None:
                times.first = now
                self._seconds["first"] += now - times.submitted
        if reason is None:
            request.handle.publish(events)
        else:
            self._end(request, reason, events)

    def _end(
        self,
        request: _Request,
        reason: str,
        events: list[Event],
        error: BaseException | None = None,
    ) -> None:
        """Takes a request out of wherever it is, and tells it."""
        with self._mutex:
            if request in self._served:
                self._served[self._served.index(request)] = None
            elif self._entering is not None and self._entering[0] is request:
                self._entering = None
            else:
                self._queue.remove(request)
                self._counts["unstarted"] += 1
            self._finished[reason] += 1
            request.handle.times.ended = now = time.monotonic()
            self._seconds["total"] += now - request.handle.times.submitted
        request.handle.publish(events, error)

    def _fail(self, error: Exception) -> None:
        """Ends what was being served; those who wait are served with a new batch."""
        entering = [self._entering[0]] if self._entering else []
        for request in [r for r in self._served if r is not None] + entering:
            self._end(request, "error", [], error)
        self._rows = self._programs.empty_rows(self._sizes[0], _SMALLEST_WINDOW)
        self._served = [None] * self._sizes[0]


def _row_sizes(slots: int) -> list[int]:
    """Sizes a batch may have: powers of two and the number of slots.

    Not 1: XLA's CPU compiler copies the whole cache for a batch of one row.
    """
    sizes = [2**i for i in range(1, slots.bit_length())]
    return [*(size for size in sizes if size < slots), max(2, slots)]


def _window(need: int) -> int:
    """The smallest room for so many positions: 64, 96, 128, 192, 256, …"""
    room = max(_SMALLEST_WINDOW, 1 << (need - 1).bit_length())
    return room * 3 // 4 if room > _SMALLEST_WINDOW and need <= room * 3 // 4 else room
