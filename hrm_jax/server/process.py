"""Runs the server of `hrm_jax.server.app` on an address, until a signal."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from hrm_jax.engine.decoder import Decoder
from hrm_jax.engine.engine import Engine
from hrm_jax.server.app import Service
from hrm_jax.server.http import is_loopback

log = logging.getLogger("hrm_jax")

_CLOSING_SECONDS = 5  # for the last bytes to clients


def bind(host: str = "127.0.0.1", port: int = 8000, api_key: str | None = None) -> socket.socket:
    """Takes an address; nobody can connect before the server runs.

    Args:
        host: Name or address.
        port: 0 takes a free one.
        api_key: That of the server.

    Raises:
        ValueError: The address is unknown or taken, or others could reach it without a key.
    """
    try:
        family, *_, address = socket.getaddrinfo(host or "?", port, type=socket.SOCK_STREAM)[0]
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(f"host: {host!r}, port {port}: {error}") from error
    if not api_key and not is_loopback(str(address[0])):
        raise ValueError(
            f"host: others can reach {host!r}, so an API key is needed; give one "
            "(--api_key or HRM_JAX_API_KEY), or take 127.0.0.1"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ValueError(f"port: {host}:{port} cannot be bound: {error.strerror}") from error
    return listener


class Server:
    """Serves a decoder until it is told to stop.

    Attributes:
        engine: What it serves with.
        service: The application.
        url: Where it is.
    """

    def __init__(
        self,
        decoder: Decoder,
        listener: socket.socket,
        *,
        api_key: str | None = None,
        slots: int = 8,
        max_queue: int = 64,
        max_tokens: int = 0,
        max_body: int = 1 << 20,
        drain_seconds: float = 30.0,
        log_level: str = "info",
    ) -> None:
        """Prepares everything; `run` serves.

        Args:
            decoder: What to serve.
            listener: Of `bind`.
            api_key: What clients must present; None asks for nothing.
            slots: Answers written at once.
            max_queue: Most answers that wait; more requests get 429.
            max_tokens: Most new tokens of an answer; 0 takes the model's length.
            max_body: Most bytes of a request.
            drain_seconds: How long running answers may take after the first signal.
            log_level: Of uvicorn.

        Raises:
            ValueError: A value is out of range, or the decoder's chat template is not valid.
        """
        for name, value, least in (
            ("max_tokens", max_tokens, 0),
            ("max_body", max_body, 1),
            ("drain_seconds", drain_seconds, 0),
        ):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if api_key == "":
            raise ValueError("api_key: expected at least one character")
        self.engine = Engine(decoder, slots=slots, max_queue=max_queue)
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.service = Service(
            self.engine,
            api_key=api_key,
            max_queue=max_queue,
            max_tokens=min(max_tokens or self.engine.max_length, self.engine.max_length),
            max_body=max_body,
            drain_seconds=drain_seconds,
            local=is_loopback(host),
        )
        self._listener = listener
        config = uvicorn.Config(
            self.service.app(self._exit),
            http="h11",
            ws="none",
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            log_level=log_level,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
        )
        self._uvicorn = _Uvicorn(config, self.stop)

    def run(self) -> bool:
        """Serves until `stop`, SIGTERM or SIGINT, and until running answers have ended.

        Returns:
            Whether the engine was fine to the end.
        """
        self._uvicorn.run(sockets=[self._listener])
        return not self.service.failed

    @property
    def started(self) -> bool:
        """Whether clients can connect."""
        return self._uvicorn.started

    def stop(self) -> None:
        """Takes no more requests and leaves when the running ones are done; any thread may call.

        Called again, it does not wait for them.
        """
        self.service.drain()

    def _exit(self) -> None:
        self._uvicorn.should_exit = True


class _Uvicorn(uvicorn.Server):
    """On a signal it first lets the application finish what it does."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        log.info("%s: finishing what runs", signal.Signals(sig).name)
        self._stop()
