"""How the reading list is served: address, TLS, and who may say who somebody is."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pipeline.config import Config


class WebConfig(Config):
    """Where and how to listen. Passwords and scans travel here: plain HTTP leaves this machine by no accident."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8650, ge=0, le=65535, description="TCP port; 0 takes a free one")
    tls_cert: Path | None = Field(None, description="certificate chain (PEM)")
    tls_key: Path | None = Field(None, description="private key (PEM)")
    plain_http: bool = Field(False, description="allow plain HTTP beyond this machine: a proxy in front speaks TLS")
    proxies: tuple[str, ...] = Field((), description="addresses of proxies whose word on the user counts")
    user_header: str | None = Field(None, description="header in which such a proxy names the user (OIDC)")

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("a certificate needs its key, and a key its certificate")
        if not (self.is_loopback or self.tls_cert or self.plain_http):
            raise ValueError(
                f"{self.host} can be reached from other machines, and passwords and scans would travel in the clear. "
                "Give a certificate and key (--tls-cert, --tls-key), or --plain-http where a proxy in front speaks TLS"
            )
        if self.user_header and not self.proxies:
            raise ValueError("a header that names the user is believed from listed proxies only: name them (--proxy)")
        for proxy in self.proxies:
            ipaddress.ip_address(proxy)
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
