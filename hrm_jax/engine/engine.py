"""Generates for many requests at once: they join and leave a running batch between its steps.

Requests stand in the rows of a batch whose size, and room for positions, are about the smallest of
a few that hold them (`hrm_jax.engine.slots`). A prompt is read in chunks, and four side by side
where so many wait; between two chunks (or a few, where many wait) the others take a step, so that a
long prompt does not hold them up. Where nobody waits, several steps are one call of the device.

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
from collections.abc import AsyncIterator, Sequence
from typing import Any

from hrm_jax.data.text.tokenizers import end_ids, prompt_tokens
from hrm_jax.engine.batch import Request, RunningBatch
from hrm_jax.engine.decoder import Decoder
from hrm_jax.engine.requests import (
    AnswerText,
    Completion,
    Event,
    Handle,
    PromptTooLong,
    QueueFull,
    RequestError,
    checked_tokens,
)
from hrm_jax.engine.sampling import Sampling


@dataclasses.dataclass
class Stats:
    """What an engine has done since it was made; seconds are of all requests together."""

    running: int = 0  # requests that are being served
    waiting: int = 0  # requests in the queue
    finished: dict[str, int] = dataclasses.field(default_factory=dict)  # by reason, or "error"
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of these, what was read for another request
    generated_tokens: int = 0
    guessed_tokens: int = 0  # of these, what was guessed rightly
    # How often each program of its decoder was compiled, by name and shape.
    compilations: dict[str, int] = dataclasses.field(default_factory=dict)
    queue_seconds: float = 0.0  # from submission until a request left the queue
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0


class Engine:
    """Serves requests with continuous batching; see the module."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        slots: int = 8,
        max_length: int = 0,
        prefill_chunk: int = 64,
        max_queue: int = 256,
        prefix_cache: int = 4,
        speculate: int = 0,
    ) -> None:
        """Puts the weights on the device; programs are compiled when they are first needed.

        `max_length` 0 takes the model's; `prefill_chunk` tokens of a prompt are read at once.
        Keys and values of the `prefix_cache` prompts that were used last are kept, a row of the
        batch each, so that the beginning of a prompt that one of them shares is not read again.
        `speculate` tokens are guessed ahead in each step, as they came before in the same text:
        answers are the same, and come sooner where they repeat something; the model's last
        `speculate` positions are not used.
        Raises `ValueError`, which names the value that is out of range.
        """
        limit = decoder.config.max_length - max(speculate, 0)
        for name, value, least, most in (
            ("speculate", speculate, 0, max(decoder.config.max_length - 2, 0)),
            ("slots", slots, 1, math.inf),
            ("max_length", max_length or limit, 1, limit),
            ("prefill_chunk", prefill_chunk, 1, math.inf),
            ("max_queue", max_queue, 1, math.inf),
            ("prefix_cache", prefix_cache, 0, math.inf),
        ):
            if not least <= value <= most:
                expected = f"at least {least}" + (f" and at most {most}" if most < math.inf else "")
                raise ValueError(f"{name}: expected {expected}, got {value}")
        if decoder.config.max_length < 2 or not decoder.config.causal:
            raise ValueError("decoder: expected a causal model of at least 2 positions")
        self.decoder = decoder
        self.slots = slots
        self.max_length = max_length or limit
        self._max_queue = max_queue

        # The queue, figures and thread are guarded by `_mutex`; the batch belongs to who holds
        # `_stepping`. Nobody waits for `_stepping` while holding `_mutex`.
        self._mutex = threading.Condition()
        self._queue: collections.deque[Request] = collections.deque()
        self._ids = itertools.count(1)
        self._thread: threading.Thread | None = None
        self._closing = False
        self._draining = False
        self._woken = False
        self._stats = Stats()

        self._stepping = threading.RLock()
        self._batch = RunningBatch(
            decoder.programs, slots, self.max_length, prefill_chunk, prefix_cache, speculate
        )

    # Callers' side

    def submit(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling | None = None,
        adapter: str | None = None,
    ) -> Handle:
        """Takes a request into the queue; any thread may call. The prompt is a text, around which
        the tokenizer puts what it puts around every text, or tokens, which are taken as they are.
        It is answered with the adapter of that name, None by the model alone.
        An answer ends with "length" where prompt and answer together reach `max_length`.

        Raises:
            RequestError: The prompt is empty and the tokenizer has no first token, is too long to
                leave room for an answer, has tokens that the model does not have, or is a text at
                which the tokenizer fails; or there is no adapter of that name.
            QueueFull: Too many requests wait.
        """
        sampling = sampling or Sampling()
        names = [None, *self.decoder.adapters]
        if adapter not in names:
            known = ", ".join(map(repr, names[1:])) or "none, for there is no adapter"
            raise RequestError(f"adapter: there is no {adapter!r:.100}; expected {known}")
        vocabulary = self.decoder.config.vocab_size
        tokenizer = self.decoder.tokenizer
        try:
            ids = prompt_tokens(tokenizer, prompt) if isinstance(prompt, str) else prompt
        except ValueError as error:
            raise RequestError(f"prompt: {error}") from error
        stops = checked_tokens("stop_tokens", sampling.stop_tokens, vocabulary)
        ids = checked_tokens("prompt", ids, vocabulary)
        if not ids:
            raise RequestError("prompt: empty, and the tokenizer has no token to begin with")
        tokens, added = self.decoder.prepared(ids)
        if len(tokens) >= self.max_length:
            raise PromptTooLong(
                f"prompt: expected at most {self.max_length - 1} tokens, so that an answer fits "
                f"into {self.max_length}, got {len(tokens)}"
            )
        if not sampling.ignore_eos:
            stops += end_ids(tokenizer)
        with self._mutex:
            if self._closing or self._draining:
                raise RequestError("the engine is closing")
            if len(self._queue) >= self._max_queue:
                raise QueueFull(f"{len(self._queue)} requests wait already, no more are taken")
            request = Request(
                Handle(self, f"request-{next(self._ids)}", len(tokens)),
                tokens,
                added,
                sampling,
                stops,
                AnswerText(self.decoder.tokenizer, tuple(sampling.stop)),
                left=min(sampling.max_new_tokens, self.max_length - len(tokens)),
                adapter=names.index(adapter),
            )
            self._queue.append(request)
            self._mutex.notify_all()
        return request.handle

    def generate(
        self, prompt: str | Sequence[int], adapter: str | None = None, **sampling: Any
    ) -> Completion:
        """Serves one request and waits for it; arguments as those of `Sampling`."""
        return self.submit(prompt, Sampling(**sampling), adapter).result()

    def batch_generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        adapter: str | None = None,
        **sampling: Any,
    ) -> list[Completion]:
        """Serves any number of requests, all with the same adapter and `Sampling`; answers are in
        their order."""
        options = Sampling(**sampling)
        handles: list[Handle] = []
        done = 0
        for prompt in prompts:
            while True:
                try:
                    handles.append(self.submit(prompt, options, adapter))
                    break
                except QueueFull:
                    if done == len(handles):  # the queue is full of others' requests
                        raise
                    handles[done].result()
                    done += 1
        return [handle.result() for handle in handles]

    async def stream(
        self, prompt: str | Sequence[int], adapter: str | None = None, **sampling: Any
    ) -> AsyncIterator[Event]:
        """Serves one request, event by event; leaving the iteration early cancels it."""
        handle = self.submit(prompt, Sampling(**sampling), adapter)
        try:
            async for event in handle:
                yield event
        finally:
            handle.cancel()

    @property
    def stats(self) -> Stats:
        with self._mutex:
            return dataclasses.replace(
                self._stats,
                waiting=len(self._queue),
                finished=dict(self._stats.finished),
                compilations=dict(self.decoder.programs.compiled),
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
        """Takes no more requests; serves those it has first if `drain`, else cancels them."""
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
            self._mutex.wait_for(lambda: self._thread is None or not self._busy())
            return self._busy()

    def _busy(self) -> bool:
        return self._stats.running > 0 or len(self._queue) > 0

    # Rounds

    def step(self) -> bool:
        """One round: chunks of prompts, then steps; returns whether something is left to do."""
        with self._stepping:
            try:
                self._drop_cancelled()
                self._read()
                if self._batch.served:
                    taken, guessed = self._batch.decode(waiting=bool(self._queue))
                    with self._mutex:
                        self._stats.guessed_tokens += guessed
                    for request, events in taken:
                        self._hand_over(request, events)
            except Exception as error:
                self._fail(error)
            with self._mutex:
                return self._busy()

    def _all(self) -> list[Request]:
        with self._mutex:
            return [*self._batch.served, *self._batch.entering, *self._queue]

    def _drop_cancelled(self) -> None:
        for request in self._all():
            if request.handle.cancelled:
                self._end(request, "cancelled", [Event(-1, "", 0.0, (), "cancelled")])

    def _read(self) -> None:
        """Reads the next chunk of a prompt, or of a few where many could join: a step of a batch
        that is nearly empty takes as long as one of a full batch."""
        with self._mutex:
            chunks = max(1, min(len(self._queue), self._batch.free) // 4)
        while chunks > 0:
            for _ in range(self._batch.takes):
                request = self._next()
                if request is None:
                    break
                self._batch.enter(request)
                with self._mutex:
                    self._stats.cached_tokens += request.read
            if not self._batch.entering:
                return
            with self._mutex:
                ahead = list(itertools.islice(self._queue, self.slots))
            chunks -= self._batch.read(ahead)

    def _next(self) -> Request | None:
        with self._mutex:
            if not self._queue or not self._batch.free or self._batch.awaits(self._queue[0]):
                return None
            request = self._queue.popleft()
            request.handle.times.started = now = time.monotonic()
            self._stats.running += 1
            self._stats.prompt_tokens += len(request.tokens)
            self._stats.queue_seconds += now - request.handle.times.submitted
        return request

    def _hand_over(self, request: Request, events: list[Event]) -> None:
        times, now = request.handle.times, time.monotonic()
        with self._mutex:
            self._stats.generated_tokens += len(events)
            if times.first is None:
                times.first = now
                self._stats.first_token_seconds += now - times.submitted
        reason = events[-1].finish_reason
        if reason is None:
            request.handle.publish(events)
        else:
            self._end(request, reason, events)

    def _end(
        self,
        request: Request,
        reason: str,
        events: list[Event],
        error: BaseException | None = None,
    ) -> None:
        """Takes a request out of wherever it is, and tells it."""
        with self._mutex:
            if request in self._queue:
                self._queue.remove(request)
            else:
                self._batch.remove(request)
                self._stats.running -= 1
            finished = self._stats.finished
            finished[reason] = finished.get(reason, 0) + 1
            request.handle.times.ended = now = time.monotonic()
            self._stats.total_seconds += now - request.handle.times.submitted
        request.handle.publish(events, error)

    def _fail(self, error: Exception) -> None:
        """Ends what was being served; those who wait are served with a new batch."""
        for request in self._all():
            if request.handle.times.started is not None:
                self._end(request, "error", [], error)
        self._batch.reset()
