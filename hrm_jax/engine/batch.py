"""The batch that is served: who has which row, what is read and made next, and its shape."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

from hrm_jax.engine.prefixes import Prefixes
from hrm_jax.engine.requests import AnswerText, Event, FinishReason, Handle
from hrm_jax.engine.sampling import Choice, Sampling
from hrm_jax.engine.slots import MAX_STEPS, Made, Programs, shape_of, window_of
from hrm_jax.models.transformer import Cache

_SMALLEST_WINDOW = 64
_ROOM = 64  # new tokens that a batch is given room for when it is moved
_WORTH_MOVING = 16  # steps to go, for a smaller batch
_TOGETHER = 4  # prompts that are read at once, where so many are there


@dataclasses.dataclass(eq=False)
class Request:
    """A request on its way through the engine."""

    handle: Handle
    tokens: list[int]  # what the model is fed before it makes tokens
    added: np.ndarray | None  # to their embeddings, float32 [n, D]
    sampling: Sampling
    stops: list[int]  # tokens that end it
    text: AnswerText
    left: int  # tokens that it may still make
    adapter: int = 0  # number of its adapter; 0 for none
    read: int = 0  # tokens of the prompt in the cache
    made: int = 0  # tokens of the answer

    @property
    def to_read(self) -> np.ndarray:
        """Tokens that are in the cache once the prompt is read: all but the last one."""
        return np.asarray(self.tokens[:-1], np.int32)

    @property
    def end(self) -> int:
        """How many those are."""
        return len(self.tokens) - 1

    @property
    def position(self) -> int:
        """Position of the token that is fed next, once the prompt is read."""
        return self.end + self.made

    def take(self, made: Made, row: int) -> list[Event]:
        """The events of what `row` has made."""
        events: list[Event] = []
        reason: FinishReason | None = None
        for step in range(len(made.token)):
            token = int(made.token[step, row])
            if token < 0 or reason is not None:
                break
            self.made += 1
            self.left -= 1
            text, stopped = "", token in self.stops
            is_end = stopped
            if not stopped:
                text, stopped = self.text.feed(token)
            if stopped:
                reason = "stop"
            elif self.left == 0:
                reason = "length"
            if reason is not None:
                rest, stopped = self.text.finish()
                text, reason = text + rest, "stop" if stopped else reason
            count = max(self.sampling.logprobs, 0)
            ids, values = made.top[step, row, :count], made.top_logprob[step, row, :count]
            top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
            logprob = float(made.logprob[step, row])
            events.append(Event(token, text, logprob, top, reason, is_end))
        return events


class RunningBatch:
    """Requests in rows, and some whose prompts are being read; for one thread at a time."""

    def __init__(
        self,
        programs: Programs,
        slots: int,
        max_length: int,
        chunk: int,
        prefixes: int,
        speculate: int,
    ) -> None:
        self._programs = programs
        self._slots = slots
        self._max_length = max_length
        self._speculate = speculate
        self._chunk = min(chunk, max_length)
        self._small = -(-self._chunk // 4)  # what is read at the end of a prompt
        self._sizes = _row_sizes(slots)
        self._prefixes = Prefixes(prefixes, self._small)
        self._spare: Cache | None = None  # of the largest batch so far, to be used again
        self.reset()

    def reset(self) -> None:
        self._entering: dict[Request, Cache] = {}
        self._prefixes.clear()
        self._rows = self._programs.empty_rows(self._sizes[0], _SMALLEST_WINDOW, self._speculate)
        self._in_rows: list[Request | None] = [None] * self._sizes[0]

    @property
    def served(self) -> list[Request]:
        return [request for request in self._in_rows if request is not None]

    @property
    def entering(self) -> list[Request]:
        return list(self._entering)

    @property
    def free(self) -> int:
        """How many more requests could have a row."""
        return self._slots - len(self.served) - len(self._entering)

    @property
    def takes(self) -> int:
        """How many more prompts could be begun with now."""
        return min(self.free, _TOGETHER - len(self._entering))

    def awaits(self, request: Request) -> bool:
        """Whether a prompt begins as one that is being read, so that it had better come after."""
        if request.added is not None or not self._entering:
            return False
        read = [(x.adapter, x.to_read) for x in self._entering if x.added is None]
        return self._prefixes.expects(request.adapter, request.to_read, read)

    def remove(self, request: Request) -> None:
        if request in self._entering:
            del self._entering[request]
        else:
            self._in_rows[self._in_rows.index(request)] = None

    def enter(self, request: Request) -> None:
        """Begins with a prompt: behind what is known of it."""
        cache = None
        if request.added is None:
            cache, request.read = self._prefixes.find(request.adapter, request.to_read)
            request.handle.cached_tokens = request.read
        if not request.read:
            cache = self._programs.empty_cache(1, _SMALLEST_WINDOW)
        self._entering[request] = cache

    def read(self, ahead: Sequence[Request]) -> int:
        """Reads a chunk of each entering prompt, if there are `_TOGETHER`, else of the first one,
        and says of how many: of those of which more than the last token (left to `decode`) is
        unread. Those that are read get rows, with room for those `ahead` too."""
        unread = [x for x in self._entering if x.read < x.end]
        group = unread if len(unread) == _TOGETHER else unread[:1]
        if group:
            self._read_chunks(group)
        for request in self.entering:
            if request.read == request.end:
                self._join(request, [*(x for x in self._entering if x is not request), *ahead])
        return len(group)

    def _read_chunks(self, group: Sequence[Request]) -> None:
        rest = max(request.end - request.read for request in group)
        size = self._small if rest <= 2 * self._small else self._chunk
        # A chunk at the end of the model's length begins earlier and reads some tokens again.
        starts = [max(0, min(x.read, self._max_length - size)) for x in group]
        tokens = np.zeros((len(group), size), np.int32)
        added = np.zeros((len(group), size, self._programs.config.hidden_size), np.float32)
        room = max(window_of(self._entering[request]) for request in group)
        while room < max(starts) + size:
            room *= 4  # few sizes, for each is compiled for
        for row, (request, start) in enumerate(zip(group, starts, strict=True)):
            stop = min(request.end, start + size)
            tokens[row, : stop - start] = request.tokens[start:stop]
            if request.added is not None:
                added[row, : stop - start] = request.added[start:stop]
            request.read = stop
            if window_of(self._entering[request]) < room:
                self._entering[request] = self._programs.widen(self._entering[request], room)
        caches, adapters = [self._entering[x] for x in group], [x.adapter for x in group]
        read = self._programs.prefill(caches, tokens, starts, added, adapters)
        self._entering.update(zip(group, read, strict=True))

    def _join(self, request: Request, ahead: Sequence[Request]) -> None:
        (size, window), served = shape_of(self._rows.cache), len(self.served)
        if served == size:
            expected = min(self._slots, served + 1 + len(ahead))
            size = next(s for s in self._sizes if s >= expected)
        if len(request.tokens) > window or size > len(self._in_rows):
            # With room for those who come next and for some tokens of each.
            needs = (len(r.tokens) + min(r.left, _ROOM) for r in [request, *ahead])
            window = max(window, _window(max(needs)))
        self._fit(size, window)
        row = self._in_rows.index(None)
        nothing = np.zeros(self._programs.config.hidden_size, np.float32)
        last = nothing if request.added is None else request.added[-1]
        cache = self._entering.pop(request)
        self._rows = self._programs.join(
            self._rows, row, cache, request.tokens, request.left, last, request.stops,
            Choice.of(request.sampling), request.adapter,
        )  # fmt: skip
        self._in_rows[row] = request
        if request.added is None:
            self._prefixes.keep(request.adapter, request.to_read, cache)

    def decode(self, waiting: bool) -> tuple[list[tuple[Request, list[Event]]], int]:
        """Takes steps: one while prompts are read or first tokens are due, else several; while
        others are `waiting`, no more than until a slot may be free. Returns the events of each
        request, and how many tokens were guessed; those that have ended keep their row until
        `remove`."""
        served = self.served
        due = any(request.made == 0 for request in served)
        if due or self._entering or (waiting and self.free):
            steps = 1
        elif waiting:
            steps = min(MAX_STEPS, min(request.left for request in served))
        else:
            steps = min(MAX_STEPS, max(request.left for request in served))
        self._make_room(served, steps, shrink=not waiting and not self._entering)
        alive = np.array([request is not None for request in self._in_rows])
        alternatives = any(request.sampling.logprobs > 0 for request in served)
        self._rows, made = self._programs.decode(
            self._rows, alive, steps, alternatives, self._speculate
        )
        made = jax.device_get(made)
        taken = [
            (request, request.take(made, row))
            for row, request in enumerate(self._in_rows)
            if request is not None
        ]
        return taken, int(made.guessed.sum())

    def _make_room(self, served: list[Request], steps: int, shrink: bool) -> None:
        """Fits the batch to those served and the positions they may reach."""
        guesses = self._speculate
        need = guesses + max(r.position + min(steps * (1 + guesses), r.left) for r in served)
        size, window = shape_of(self._rows.cache)
        roomy = _window(max(need, *(r.position + min(r.left, _ROOM) for r in served)))
        if need > window:
            window = roomy
        if shrink and max(r.left for r in served) >= _WORTH_MOVING:
            smaller = next(s for s in self._sizes if s >= len(served))
            if smaller < size or roomy <= window // 2:
                size, window = smaller, roomy
        self._fit(size, window)

    def _fit(self, size: int, window: int) -> None:
        """Moves what is served into the first rows of a batch of this shape, if it has another."""
        old = shape_of(self._rows.cache)
        if (size, window) == old:
            return
        room, self._spare = self._spare, None
        if room is None or shape_of(room) != (size, window):
            self._spare = room
            room = self._programs.empty_cache(size, window)
        source = [row for row, request in enumerate(self._in_rows) if request is not None]
        served = [self._in_rows[row] for row in source]
        free = size - len(source)
        left = self._rows.cache
        self._rows = self._programs.fit(self._rows, source + [-1] * free, room)
        self._in_rows = served + [None] * free
        # New memory is slow, so that of the largest batch is kept for when many come again.
        kept = 0 if self._spare is None else math.prod(shape_of(self._spare))
        if math.prod(old) > max(size * window, kept):
            self._spare = left


def _row_sizes(slots: int) -> list[int]:
    """Powers of two and the number of slots."""
    return [*(2**i for i in range(slots.bit_length()) if 2**i < slots), slots]


def _window(need: int) -> int:
    """The smallest room for so many positions: 64, 96, 128, 192, 256, …"""
    room = max(_SMALLEST_WINDOW, 1 << (need - 1).bit_length())
    return room * 3 // 4 if room > _SMALLEST_WINDOW and need <= room * 3 // 4 else room
