"""What the server needs of HTTP: hosts, bodies, errors and the chat page."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import importlib.resources
import ipaddress
import re

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from hrm_jax.server.schemas import ApiError
from hrm_jax.server.streams import client_gone

_BODY_SECONDS = 30.0


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, leads to this machine alone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


async def read_json(request: Request, limit: int) -> bytes:
    """A JSON body of at most `limit` bytes, not parsed, read no further than that; or `ApiError`
    415, 413 or 408."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"content-type: expected application/json, got {kind!r}")
    large = ApiError(
        413,
        f"the body is larger than {limit} bytes",
        code="body_too_large",
        headers={"Connection": "close"},
    )
    declared = request.headers.get("content-length", "0")
    if len(declared) > 15 or int(declared) > limit:
        raise large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise large
    except TimeoutError as error:
        raise ApiError(
            408,
            f"the body did not come within {_BODY_SECONDS:g} s",
            headers={"Connection": "close"},
        ) from error
    except ClientDisconnect as error:
        raise client_gone() from error
    return bytes(body)


def error_response(error: ApiError) -> Response:
    """An error in OpenAI's form."""
    return JSONResponse(error.body(), error.status, error.headers)


@functools.cache
def chat_page() -> tuple[str, dict[str, str]]:
    """The page and its headers: it may run its own script and speak to this server only."""
    file = importlib.resources.files("hrm_jax.server").joinpath("chat_page.html")
    page = file.read_text(encoding="utf-8")
    hashes = {}
    for element in ("script", "style"):
        (body,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digest = hashlib.sha256(body.encode()).digest()
        hashes[element] = f"'sha256-{base64.b64encode(digest).decode()}'"
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page, {
        "content-security-policy": policy,
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
