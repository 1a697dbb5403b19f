"""The server's guards: the addresses it listens on, and the proxies whose headers it trusts."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

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
