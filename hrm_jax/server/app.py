"""An HTTP server that speaks as OpenAI's does, and a chat page.

| path | |
|---|---|
| `/v1/models`, `/v1/completions`, `/v1/chat/completions` | as OpenAI's; see `schemas` |
| `/health` | 200, or 503 while it drains or when the engine has failed; needs no key |
| `/metrics` | for Prometheus |
| `/` | the chat page; needs no key, but asks for it |

Without an API key it is bound to loopback addresses only. There it answers, but for `/health`, only
requests that name a loopback host or one that was allowed, so that no web page can reach it under a
name of its own; and bodies must be declared as JSON, which pages of others may not send.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hrm_jax.data.text.chat_template import ChatTemplate
from hrm_jax.engine.engine import Engine
from hrm_jax.engine.requests import Event, Handle, PromptTooLong, QueueFull, RequestError
from hrm_jax.engine.sampling import Sampling
from hrm_jax.server.http import (
    chat_page,
    check_head,
    discard,
    error_response,
    host_name,
    is_loopback,
    read_json,
)
from hrm_jax.server.metrics import Metrics
from hrm_jax.server.options import Options
from hrm_jax.server.replies import Reply
from hrm_jax.server.schemas import ApiError, ChatRequest, CompletionRequest, parse, shown
from hrm_jax.server.streams import Answers, EventStream, draining, engine_failed

log = logging.getLogger("hrm_jax")

_TICK = 0.1
_OPEN = ("/", "/health")  # paths that need no key
_OUTCOMES = {401: "unauthorized", 408: "cancelled", 429: "overloaded", 503: "unavailable"}


class Service:
    """The application: endpoints, and what all requests share."""

    def __init__(self, engine: Engine, options: Options, local: bool) -> None:
        self.failed = False  # whether the engine's thread has ended by itself
        self._engine = engine
        self._options = options
        self._max_tokens = min(options.max_tokens or engine.max_length, engine.max_length)
        self._hosts: set[str] | None = None  # that requests may name besides loopback; None is any
        if local and options.api_key is None:
            self._hosts = set(map(host_name, options.allowed_hosts))
        self._deadline: float | None = None  # of draining
        self._open_requests = 0
        self._answers: set[Answers] = set()
        self._metrics = Metrics(engine)
        self._template = ChatTemplate(engine.decoder.chat_template, engine.decoder.tokenizer)
        self._name = engine.decoder.name or "model"
        self._created = int(time.time())
        self._page, self._page_headers = chat_page()

    def app(self, drained: Any = None) -> Starlette:
        """The ASGI application; calls `drained` once when draining is done."""

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            self._engine.start()
            watch = asyncio.create_task(self._watch(drained))
            yield
            watch.cancel()
            self._engine.close()

        self._endpoints = {
            "/v1/completions": (self._completions, "POST"),
            "/v1/chat/completions": (self._chat, "POST"),
            "/v1/models": (self._models, "GET"),
            "/v1/models/{name:path}": (self._model, "GET"),
            "/health": (self._health, "GET"),
            "/metrics": (self._figures, "GET"),
            "/": (self._chat_page, "GET"),
        }
        app = Starlette(
            routes=[Route(p, f, methods=[m]) for p, (f, m) in self._endpoints.items()],
            middleware=[Middleware(self._gate)],
            exception_handlers={
                ApiError: lambda _, error: error_response(error),
                HTTPException: lambda r, e: error_response(  # of the router: 404 or 405
                    ApiError(
                        e.status_code,
                        f"{r.method:.20} {r.scope['path']:.200}: {e.detail}",
                        headers=e.headers,
                    )
                ),
                Exception: lambda _, __: error_response(
                    ApiError(500, "internal error; the server's log has more")
                ),
            },
            lifespan=lifespan,
        )
        app.router.redirect_slashes = False  # `_gate` has taken them away
        return app

    def drain(self) -> None:
        """Takes no more requests; called again, ends the running ones."""
        now = time.monotonic()
        self._deadline = now + self._options.drain_seconds if self._deadline is None else now

    async def _watch(self, drained: Any) -> None:
        """Notices an engine that has died, and the end of draining."""
        while True:
            await asyncio.sleep(_TICK)
            if not self.failed and not self._engine.running:
                log.error("the engine's thread has ended; all requests fail from now on")
                self.failed = True
            if self.failed:
                self._end_all(engine_failed())
            if self._deadline is not None:
                if time.monotonic() >= self._deadline:
                    self._end_all(draining())
                if drained and (not self._open_requests or time.monotonic() > self._deadline + 1):
                    drained()
                    drained = None

    def _end_all(self, error: ApiError) -> None:
        for answers in self._answers:
            answers.fail(error)

    # Admission

    def _gate(self, app: ASGIApp) -> ASGIApp:
        """Admits requests, and counts them with their outcomes."""

        async def gated(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            # Clients put a slash at the end, or two behind their base address.
            path = scope["path"] = "/" + "/".join(filter(None, scope["path"].split("/")))
            request, outcome, status = Request(scope), "error", 0
            # Whether all of the body has come, or none will.
            complete = "expect" in request.headers

            async def reading() -> Message:
                nonlocal complete
                message = await receive()
                complete = not message.get("more_body")
                return message

            async def noting(message: Message) -> None:
                nonlocal outcome, status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    outcome = _outcome(status)
                elif not message.get("more_body") and not complete and status != 408:
                    # Who still sends at the end sees no answer, so the rest is read.
                    await send({**message, "more_body": True})
                    message = {"type": "http.response.body"}
                    await discard(reading)
                await send(message)

            self._open_requests += 1
            try:
                self._admit(request)
                await app(scope, reading, noting)
                outcome = getattr(request.state, "outcome", outcome)
            except ApiError as error:
                await error_response(error)(scope, reading, noting)
            finally:
                self._open_requests -= 1
                if path.startswith("/v1/"):
                    self._metrics.request(path if path in self._endpoints else "other", outcome)

        return gated

    def _admit(self, request: Request) -> None:
        """Lets a request in, or raises `ApiError` 400, 403, 401 or 503."""
        check_head(request)
        path = request.scope["path"]
        if self._hosts is not None and path != "/health":
            name = host_name(request.headers.get("host", ""))
            if not is_loopback(name) and name not in self._hosts:
                raise ApiError(
                    403,
                    f"host {shown(name)}: expected localhost or a loopback address; behind a "
                    "proxy, name it in --allowed_hosts, or ask for an API key",
                    code="bad_host",
                )
        if self._options.api_key is not None and path not in _OPEN:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            given, expected = key.strip().encode("latin-1"), self._options.api_key.encode()
            if scheme.lower() != "bearer" or not hmac.compare_digest(given, expected):
                raise ApiError(
                    401,
                    "expected the header Authorization: Bearer and the server's API key",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        if path.startswith("/v1/") and self._deadline is not None:
            raise draining()

    # Endpoints

    async def _models(self, _: Request) -> Response:
        cards = [self._card(name) for name in (self._name, *self._engine.decoder.adapters)]
        return JSONResponse({"object": "list", "data": cards})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(self._card(self._adapter(name) or self._name))

    def _card(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "hrm_jax",
            "max_model_len": self._engine.max_length,
            "max_tokens": self._max_tokens,
        }

    def _adapter(self, name: str) -> str | None:
        """The adapter that a request's `model` names; None for the model itself."""
        if name in ("", self._name):
            return None
        adapters = self._engine.decoder.adapters
        if name not in adapters:
            known = " or ".join(map(repr, (self._name, *adapters)))
            raise ApiError(
                404,
                f"model: there is no {shown(name)}; expected {known}",
                param="model",
                code="model_not_found",
            )
        return name

    async def _completions(self, request: Request) -> Response:
        asked = parse(CompletionRequest, await read_json(request, self._options.max_body))
        return await self._answer(request, asked, asked.prompt)

    async def _chat(self, request: Request) -> Response:
        asked = parse(ChatRequest, await read_json(request, self._options.max_body))
        try:
            # In a thread, because templates may take their time.
            prompt = await asyncio.to_thread(
                self._template.encode,
                [{"role": m.role, "content": m.content} for m in asked.messages],
            )
        except ValueError as error:
            raise ApiError(400, str(error), param="messages") from error
        return await self._answer(request, asked, [prompt])

    async def _health(self, _: Request) -> Response:
        state = "failed" if self.failed else "ok" if self._deadline is None else "draining"
        stats = self._engine.stats
        content = {"status": state, "running": stats.running, "waiting": stats.waiting}
        return JSONResponse(content, 200 if state == "ok" else 503)

    async def _figures(self, _: Request) -> Response:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(self._metrics.text(), headers={"content-type": kind})

    async def _chat_page(self, _: Request) -> Response:
        return HTMLResponse(self._page, headers=self._page_headers)

    # Answers

    async def _answer(
        self,
        request: Request,
        asked: CompletionRequest | ChatRequest,
        prompts: Sequence[str | list[int]],
    ) -> Response:
        adapter = self._adapter(asked.model)
        slots, queue, count = self._engine.slots, self._options.max_queue, len(prompts) * asked.n
        if asked.n > slots:
            raise ApiError(400, f"n: expected at most {slots}, got {asked.n}", param="n")
        if count > queue:
            param = "prompt" if len(prompts) > 1 else "n"
            message = f"{param}: expected at most {queue} answers in one request, got {count}"
            raise ApiError(400, message, param=param)
        samplings = asked.samplings(self._max_tokens)
        jobs = [(prompt, sampling) for prompt in prompts for sampling in samplings]
        if self.failed or not self._engine.running:
            raise engine_failed()
        param = "messages" if isinstance(asked, ChatRequest) else "prompt"
        # In a thread, because tokenizing takes time, and so does planning.
        handles = await asyncio.to_thread(self._submit, jobs, param, adapter)
        reply = Reply(asked, adapter or self._name, self._engine.decoder.tokenizer)
        reply.prompts = handles[:: asked.n]
        answers = Answers(handles, request.receive, self._metrics)
        if asked.stream:
            return EventStream(self._chunks(request, answers, reply))
        events: list[list[Event]] = [[] for _ in handles]
        async with self._batches(answers) as batches:
            async for batch in batches:
                for index, new in batch.items():
                    events[index] += new
        return JSONResponse(reply.whole(events))

    def _submit(
        self, jobs: Sequence[tuple[Any, Sampling]], param: str, adapter: str | None
    ) -> list[Handle]:
        handles: list[Handle] = []
        try:
            for prompt, sampling in jobs:
                handles.append(self._engine.submit(prompt, sampling, adapter))
        except Exception as error:
            for handle in handles:
                handle.cancel()
            if isinstance(error, RequestError):
                if self._deadline is not None:
                    raise draining() from error
                field, _, problem = str(error).partition(": ")  # as the engine names it
                param = {"stop_tokens": "stop_token_ids"}.get(field, param)
                code = "context_length_exceeded" if isinstance(error, PromptTooLong) else None
                raise ApiError(
                    400, f"{param}: {problem or error}", param=param, code=code
                ) from error
            if isinstance(error, QueueFull):
                raise ApiError(
                    429, str(error), code="queue_full", headers={"Retry-After": "1"}
                ) from error
            raise
        return handles

    @contextlib.asynccontextmanager
    async def _batches(self, answers: Answers) -> AsyncIterator[Any]:
        """Events as they come, until `_end_all` or the answers end them."""
        self._answers.add(answers)
        try:
            async with contextlib.aclosing(answers.batches()) as batches:
                yield batches
        finally:
            self._answers.discard(answers)

    async def _chunks(
        self, request: Request, answers: Answers, reply: Reply
    ) -> AsyncGenerator[str, None]:
        """The lines of a stream; an error after its beginning is one of them."""
        try:
            for chunk in reply.opening(answers.count):
                yield _line(chunk)
            async with self._batches(answers) as batches:
                async for batch in batches:
                    for index, events in batch.items():
                        said = reply.chunk(index, events)
                        if said is not None:
                            yield _line(said)
            for chunk in reply.closing():
                yield _line(chunk)
            yield "data: [DONE]\n\n"
        except ApiError as error:
            request.state.outcome = _outcome(error.status)
            yield _line(error.body())


def _line(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n\n"


def _outcome(status: int) -> str:
    kind = "ok" if status < 400 else "refused" if status < 500 else "error"
    return _OUTCOMES.get(status, kind)
