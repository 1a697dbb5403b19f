"""The server's guards: the addresses it listens on, and the proxies whose headers it trusts."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.review.web.app import create_app
from pipeline.review.web.config import WebConfig


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_this_machine_needs_no_certificate(host: str) -> None:
    assert WebConfig(host=host).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "reading.hospital.example", "::ffff:10.0.0.1"])
def test_another_address_needs_tls_or_a_word(host: str) -> None:
    with pytest.raises(ValidationError, match="unencrypted"):
        WebConfig(host=host)
    assert WebConfig(host=host, plain_http=True).host == host
    assert WebConfig(host=host, tls_cert=Path("c.pem"), tls_key=Path("k.pem")).host == host


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValidationError, match="its key"):
        WebConfig(tls_cert=Path("c.pem"))


def test_a_user_header_needs_listed_proxies() -> None:
    with pytest.raises(ValidationError, match="--proxy"):
        WebConfig(user_header="x-user")
    with pytest.raises(ValidationError):
        WebConfig(user_header="x-user", proxies=("not-an-address",))
    assert WebConfig(user_header="x-user", proxies=("10.0.0.9",)).proxies == ("10.0.0.9",)


def test_a_page_that_is_left_while_its_form_is_on_its_way_is_not_a_fault(
    browser: Any, room: Any, listed: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    cookies = "; ".join(f"{name}={value}" for name, value in browser("ann").client.cookies.items())
    headers = {"cookie": cookies, "content-length": "1000", "content-type": "application/x-www-form-urlencoded"}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": f"/scan/{listed[0]}/draft",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("203.0.113.7", 50000),
        "server": ("reading.example", 443),
    }
    messages = iter([{"type": "http.request", "body": b"csrf=", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    with caplog.at_level(logging.ERROR):
        asyncio.run(create_app(room)(scope, receive, send))
    assert next(messages, None) is None, "the whole form was waited for"
    assert (caplog.records, sent) == ([], [])
