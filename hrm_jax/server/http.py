"""What the server needs of HTTP: hosts, bodies, errors and the chat page."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import importlib.resources
import ipaddress
import re

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive

from hrm_jax.server.schemas import ApiError, shown
from hrm_jax.server.streams import client_gone

_BODY_SECONDS = 30.0
_ONCE = ("host", "authorization", "content-type", "content-encoding")


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, leads to this machine alone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def host_name(host: str) -> str:
    """The name or address in a `Host` header, in small letters, without its port."""
    name = re.sub(r":\d*$", "", host.lower())
    return name.removeprefix("[").removesuffix("]").rstrip(".")


def check_head(request: Request) -> None:
    """Raises `ApiError` 400 where two readers of a request could read it as two different ones."""
    close = {"Connection": "close"}
    for name in _ONCE:
        if len(request.headers.getlist(name)) > 1:
            raise ApiError(400, f"{name}: expected once, got it several times", headers=close)
    if "transfer-encoding" in request.headers:
        if "content-length" in request.headers:
            raise ApiError(400, "content-length: not with transfer-encoding", headers=close)
        if request.scope["http_version"] < "1.1":
            raise ApiError(400, "transfer-encoding: not in HTTP/1.0", headers=close)


async def discard(receive: Receive) -> None:
    """Reads what is left of a body, for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_BODY_SECONDS):
            while (await receive()).get("more_body"):
                pass


async def read_json(request: Request, limit: int) -> bytes:
    """A JSON body of at most `limit` bytes, not parsed, read no further than that; or `ApiError`
    415, 413 or 408."""
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    if kind.strip() != "application/json":
        raise ApiError(415, f"content-type: expected application/json, got {shown(kind)}")
    charset = re.search(r"charset *= *\"?([^\s\";]*)", parameters)
    if charset is not None and charset[1] not in ("utf-8", "utf8", "us-ascii"):
        raise ApiError(415, f"content-type: expected charset=utf-8, got {shown(charset[1])}")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ApiError(415, f"content-encoding: expected none, a plain body, got {shown(encoding)}")
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
