"""Answers on their way to a client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hrm_jax.engine.requests import Event, Handle
from hrm_jax.server.metrics import Metrics
from hrm_jax.server.schemas import ApiError

log = logging.getLogger("hrm_jax")

_SSE = "text/event-stream; charset=utf-8"


class Answers:
    """The events of one or more handles, until one fails, or the client or the engine is gone."""

    def __init__(self, handles: Sequence[Handle], receive: Receive, metrics: Metrics) -> None:
        self.count = len(handles)
        self._handles = handles
        self._receive = receive
        self._metrics = metrics
        self._queue: asyncio.Queue[tuple[int, Event] | ApiError] = asyncio.Queue()

    def fail(self, error: ApiError) -> None:
        self._queue.put_nowait(error)

    async def batches(self) -> AsyncGenerator[dict[int, list[Event]], None]:
        """What has come since the last time, for each handle's number, or `ApiError` where there
        will be no more; cancels what is left."""
        tasks = [asyncio.create_task(self._follow(*x)) for x in enumerate(self._handles)]
        tasks.append(asyncio.create_task(self._watch()))
        left = self.count
        try:
            while left:
                items = [await self._queue.get()]
                while not self._queue.empty():
                    items.append(self._queue.get_nowait())
                batch: dict[int, list[Event]] = {}
                for item in items:
                    if isinstance(item, ApiError):
                        raise item
                    index, event = item
                    batch.setdefault(index, []).append(event)
                    left -= event.finish_reason is not None
                yield batch
        finally:
            for task in tasks:
                task.cancel()
            for handle in self._handles:
                if not handle.finished:
                    handle.cancel()

    async def _follow(self, index: int, handle: Handle) -> None:
        try:
            async for event in handle:
                if event.finish_reason == "cancelled":  # by the engine's end
                    self.fail(draining())
                    return
                if event.finish_reason is not None:
                    self._metrics.answer(handle)
                self._queue.put_nowait((index, event))
        except Exception:  # of the engine; whoever waits must hear of it
            log.exception("an answer failed")
            self.fail(engine_failed())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.fail(client_gone())


class EventStream(Response):
    """Server-sent events; a client that is gone is the generator's business."""

    def __init__(self, lines: AsyncGenerator[str, None]) -> None:
        headers = {"content-type": _SSE, "cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with contextlib.aclosing(self._lines) as lines:
            async for line in lines:
                body = line.encode(errors="replace")
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def engine_failed() -> ApiError:
    return ApiError(500, "the engine failed; the server's log has more", code="engine_failed")


def draining() -> ApiError:
    return ApiError(
        503, "the server is shutting down", code="draining",
        headers={"Retry-After": "5", "Connection": "close"},
    )  # fmt: skip


def client_gone() -> ApiError:
    return ApiError(408, "the client is gone")
