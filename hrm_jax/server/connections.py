"""Connections: how many there are at once, and how long a client may keep one waiting."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from hrm_jax.server.http import error_response
from hrm_jax.server.schemas import ApiError

_HEAD_SECONDS = 20.0  # for the rest of a request's head, once it has begun
_STALLED_SECONDS = 60.0  # for a client that reads nothing of its answer
_CLOSING_SECONDS = 5.0  # for what a refused client still sends


def most_connections(wanted: int) -> int:
    """How many connections of those `wanted` this process's limit on open files allows; it is
    raised where it may be. Twice as many files are needed, for new connections are accepted, many
    at a time, before idle ones give way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/dev/fd"))
    needed = used + 2 * wanted
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        wanted = min(wanted, max(1, (soft - used) // 2))
    return wanted


class Connection(H11Protocol):
    """Uvicorn's, with limits. Of too many the one that has been idle for longest gives way; where
    none is idle, the new one is refused."""

    def __init__(self, *args: Any, most: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most = most
        self._idle_since = time.monotonic()
        self._refused = False
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self._most:
            all_of_them: set[Any] = self.connections
            others = [x for x in all_of_them if x is not self and x._idle]
            if not others:
                self._refuse(ApiError(503, "too many connections", code="too_many_connections"))
                return
            longest = min(others, key=lambda x: x._idle_since)
            self.connections.discard(longest)
            longest.transport.abort()
        self._set_clocks()

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)
            self._set_clocks()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle_since = time.monotonic()
        self._set_clocks()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._late, self._stalled):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(_STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def _set_clocks(self) -> None:
        """A request that has begun must come soon, whatever comes of it; an idle connection may
        last for as long as it is kept alive."""
        if self.transport.is_closing() or self._refused:
            return
        half = bool(self.conn.trailing_data[0]) or self.conn.their_state is not h11.IDLE
        if self._idle and half:
            if self._late is None:
                self._late = self.loop.call_later(_HEAD_SECONDS, self._end_late)
            return
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._idle and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _end_late(self) -> None:
        self._refuse(ApiError(408, f"the request did not come within {_HEAD_SECONDS:g} s"))

    def send_400_response(self, msg: str) -> None:
        """For what is not HTTP; Uvicorn calls it while it handles h11's error."""
        error = sys.exc_info()[1]
        status = getattr(error, "error_status_hint", 400)
        self._refuse(ApiError(status, f"not a valid HTTP request: {error or msg}"[:200]))

    def _refuse(self, error: ApiError) -> None:
        """Says so, if an answer has not begun, and closes. What the client still sends is taken for
        a while, because it would else see a broken connection and no answer."""
        self._refused = True
        if not self._idle:
            self.cycle.disconnected, self.cycle.waiting_for_100_continue = True, False
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = error_response(error)
            headers = [*response.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(
                    status_code=error.status, headers=headers, reason=STATUS_PHRASES[error.status]
                ),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_CLOSING_SECONDS, self.transport.abort)
