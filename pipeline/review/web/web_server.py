"""Server of the reading list, running until it is stopped."""

from __future__ import annotations

import asyncio.constants
import resource
import signal
import socket
from collections.abc import Callable

import uvicorn

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.review.web.app import create_app
from pipeline.review.web.app_state import Room
from pipeline.review.web.config import WebConfig
from pipeline.review.web.connections import limited

BACKLOG = 256
DESCRIPTORS = 8192
HANDSHAKE_S = 10.0


def serve(settings: Settings, config: WebConfig, on_ready: Callable[[str], None]) -> None:
    """Listen until SIGINT or SIGTERM; requests in progress are completed.

    There is no access log: the audit log records who saw what, and page addresses may not be logged elsewhere.

    Args:
        settings: the workspace.
        config: where to listen.
        on_ready: called with the address once connections are accepted.

    Raises:
        ConfigError: the address cannot be bound, or the certificate cannot be read.
        CatalogueError: the workspace's database cannot be opened.
    """
    _allow_descriptors()
    with _bound(config) as bound, Room.open(settings, config) as room:
        server = uvicorn.Server(_settings_of(room))
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn handles signals while it runs, and raises them again afterwards. A signal that comes just
            # before, when the address has been printed, must stop it too.
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        host = f"[{config.host}]" if ":" in config.host else config.host
        on_ready(f"{'https' if config.tls_cert else 'http'}://{host}:{bound.getsockname()[1]}/")
        server.run(sockets=[bound])


def _settings_of(room: Room) -> uvicorn.Config:
    server_config = uvicorn.Config(
        create_app(room),
        http=limited(room.config.proxies),
        ws="none",
        loop="asyncio",
        ssl_certfile=room.config.tls_cert,
        ssl_keyfile=room.config.tls_key,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # trust in proxies is decided in one place, `access`
        timeout_graceful_shutdown=10,
    )
    try:
        server_config.load()
    except OSError as error:
        raise ConfigError(
            f"The certificate or its key cannot be used: {error.strerror or error}. Check --tls-cert and --tls-key."
        ) from None
    return server_config


def _allow_descriptors() -> None:
    """Raise the soft limit of open files, often 1 024, towards the hard one; half-done TLS handshakes end sooner."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    # uvicorn offers no option for it, and the protocol sees a connection only after its handshake.
    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = HANDSHAKE_S


def _bound(config: WebConfig) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        return socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {config.host}, port {config.port}: {error.strerror}. Choose another --host or --port."
        ) from None
