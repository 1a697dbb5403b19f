"""Serving the reading list until it is told to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import uvicorn

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.review.web.app import create_app
from pipeline.review.web.app_state import Room
from pipeline.review.web.config import WebConfig

BACKLOG = 256


def serve(settings: Settings, config: WebConfig, on_ready: Callable[[str], None]) -> None:
    """Listen until SIGINT or SIGTERM; requests that are being answered are answered.

    There is no access log: the audit log says who saw what, and addresses of pages are nobody else's business.

    Args:
        settings: the workspace.
        config: where to listen.
        on_ready: called with the address once connections are taken.

    Raises:
        ConfigError: the address cannot be bound, or the certificate not be read.
        CatalogueError: the workspace's database cannot be opened.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the server has its own while it runs, and sends it on afterwards
    with _bound(config) as bound, Room.open(settings, config) as room:
        server = uvicorn.Server(_settings_of(room))
        host = f"[{config.host}]" if ":" in config.host else config.host
        on_ready(f"{'https' if config.tls_cert else 'http'}://{host}:{bound.getsockname()[1]}/")
        server.run(sockets=[bound])


def _settings_of(room: Room) -> uvicorn.Config:
    found = uvicorn.Config(
        create_app(room),
        ssl_certfile=room.config.tls_cert,
        ssl_keyfile=room.config.tls_key,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whom a proxy vouches for is decided in one place, `access`
        timeout_graceful_shutdown=10,
    )
    try:
        found.load()
    except OSError as error:
        raise ConfigError(f"The certificate or its key cannot be used: {error.strerror or error}.") from None
    return found


def _bound(config: WebConfig) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        return socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {config.host}, port {config.port}: {error.strerror}. Choose another --host or --port."
        ) from None
