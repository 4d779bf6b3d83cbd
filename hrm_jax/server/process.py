"""Runs the server of `hrm_jax.server.app` on an address, until a signal."""

from __future__ import annotations

import copy
import functools
import logging
import signal
import socket
from types import FrameType

import uvicorn

from hrm_jax.engine.decoder import Decoder
from hrm_jax.engine.engine import Engine
from hrm_jax.server.app import Service
from hrm_jax.server.connections import Connection, most_connections
from hrm_jax.server.http import is_loopback
from hrm_jax.server.logs import LossyHandler
from hrm_jax.server.options import Options

log = logging.getLogger("hrm_jax")

_CLOSING_SECONDS = 5  # for the last bytes to clients


def bind(host: str = "127.0.0.1", port: int = 8000, api_key: str | None = None) -> socket.socket:
    """Takes an address, or with port 0 a free one; nobody can connect before the server runs.
    Raises `ValueError` where it is unknown or taken, or others could reach it without a key."""
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
    """Serves a decoder at the address of `bind`, `url`, until it is told to stop."""

    def __init__(
        self,
        decoder: Decoder,
        listener: socket.socket,
        options: Options,
        log_level: str = "info",
    ) -> None:
        """Raises `ValueError` where a value is out of range, or the decoder's chat template is not
        valid."""
        self.engine = Engine(
            decoder,
            slots=options.slots,
            max_queue=options.max_queue,
            prefix_cache=options.prefix_cache,
            speculate=options.speculate,
        )
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.service = Service(self.engine, options, local=is_loopback(host))
        self._listener = listener
        most = most_connections(options.max_connections)
        if most < options.max_connections:
            log.warning("%d connections at most: this process may not open more files", most)
        logs = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
        for handler in logs["handlers"].values():
            handler["class"] = f"{LossyHandler.__module__}.{LossyHandler.__name__}"
        config = uvicorn.Config(
            self.service.app(drained=self._exit),
            http=functools.partial(Connection, most=most),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            log_config=logs,
            log_level=log_level,
            timeout_keep_alive=options.keep_alive,  # type: ignore[arg-type]  # seconds, in parts too
            timeout_graceful_shutdown=_CLOSING_SECONDS,
        )
        self._uvicorn = uvicorn.Server(config)
        self._uvicorn.handle_exit = self._on_signal  # type: ignore[method-assign]

    def run(self) -> bool:
        """Serves until `stop`, SIGTERM or SIGINT, and until running answers have ended; returns
        whether the engine was fine to the end."""
        self._uvicorn.run(sockets=[self._listener])
        return not self.service.failed

    @property
    def started(self) -> bool:
        """Whether clients can connect."""
        return self._uvicorn.started

    def stop(self) -> None:
        """Takes no more requests and leaves when the running ones are done, or at once when called
        again; any thread may call."""
        self.service.drain()

    def _exit(self) -> None:
        self._uvicorn.should_exit = True

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:
        log.info("%s: finishing what runs", signal.Signals(sig).name)
        self.stop()
