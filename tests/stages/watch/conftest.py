"""A site with real receivers: a mail server and a web server on 127.0.0.1 that keep what they get."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import update

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.watch_schema import AlertMessageRow, NightRow
from pipeline.stages.watch.site_config import Email, SiteConfig, WatchConfig, Webhook


@dataclass
class Sinks:
    """What arrived: mails as (to, subject, text), and JSON bodies by path; `broken` answers 503 and 451."""

    mail_port: int = 0
    web_port: int = 0
    mails: list[tuple[list[str], str, str]] = field(default_factory=list)
    posts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    broken: bool = False

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.broken:
            return "451 Try again later"
        letter = message_from_bytes(envelope.content, policy=policy.default)
        self.mails.append((envelope.rcpt_tos, str(letter["Subject"]), letter.get_content()))  # type: ignore[attr-defined]
        return "250 OK"


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    """Both servers, running."""
    controllers = pytest.importorskip("aiosmtpd.controller", reason="aiosmtpd is not installed")
    sinks = Sinks()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not sinks.broken:
                sinks.posts.append((self.path, body))
            self.send_response(503 if sinks.broken else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    with socket.socket() as probe:  # the controller connects to itself, so it must know its port
        probe.bind(("127.0.0.1", 0))
        sinks.mail_port, sinks.web_port = probe.getsockname()[1], web.server_port
    mail = controllers.Controller(sinks, hostname="127.0.0.1", port=sinks.mail_port)
    mail.start()
    yield sinks
    mail.stop()
    web.shutdown()
    web.server_close()


@pytest.fixture
def site(sinks: Sinks) -> SiteConfig:
    """A site that tells all three kinds of receivers, and expects any disk to be full enough."""
    url = f"http://127.0.0.1:{sinks.web_port}"
    return SiteConfig(
        name="North wing",
        email=Email(
            host="127.0.0.1", port=sinks.mail_port, sender="nr@example.org", to=("pacs@example.org",), tls="none"
        ),
        webhooks=(Webhook(name="hook", url=f"{url}/hook"), Webhook(name="chat", url=f"{url}/chat", form="slack")),
        watch=WatchConfig(least_free_gib=0, down_seconds=0),
    )


@pytest.fixture
def add_night(settings: Settings) -> Callable[..., int]:
    """Add a night that began some hours ago; fields of the row override the defaults of a good night."""

    def add(hours: float = 1.0, **fields: Any) -> int:
        began = now() - timedelta(hours=hours)
        summary = {"files": 10, "new": 9, "refused": 1, "scored": 4, "flagged": 1, "failures": 0, "seconds": 61.0}
        values = {
            "schedule": "nightly", "due_at": began, "started_at": began, "beat_at": began, "ended_at": began,
            "state": "done",
        }  # fmt: skip
        values |= {key: value for key, value in fields.items() if key in values}
        summary |= {key: value for key, value in fields.items() if key not in values}
        with Catalogue.open(settings) as catalogue, catalogue.session() as session:
            row = NightRow(**values, summary=summary)
            session.add(row)
            session.flush()
            return row.id

    return add


@pytest.fixture
def forget_pauses(settings: Settings) -> Callable[[], None]:
    """Make every waiting message due at once."""

    def forget() -> None:
        with Catalogue.open(settings) as catalogue, catalogue.session() as session:
            session.execute(update(AlertMessageRow).values(try_at=datetime(2020, 1, 1)))

    return forget
