"""Configuration of the web server: address, TLS and trusted proxies."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pipeline.config import Config


class WebConfig(Config):
    """Address and security of the web server; plain HTTP beyond this machine must be chosen explicitly."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8650, ge=0, le=65535, description="TCP port; 0 chooses a free one")
    tls_cert: Path | None = Field(None, description="certificate chain (PEM)")
    tls_key: Path | None = Field(None, description="private key (PEM)")
    plain_http: bool = Field(
        False, description="allow plain HTTP beyond this machine: for use behind a proxy that provides TLS"
    )
    proxies: tuple[str, ...] = Field((), description="addresses of proxies that are trusted to name the user")
    user_header: str | None = Field(None, description="header in which a trusted proxy names the user (OIDC)")

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS needs both a certificate and its key (--tls-cert, --tls-key)")
        if not (self.is_loopback or self.tls_cert or self.plain_http):
            raise ValueError(
                f"{self.host} can be reached from other machines, so passwords and scans would be sent unencrypted. "
                "Give a certificate and key (--tls-cert, --tls-key), or --plain-http behind a proxy that provides TLS"
            )
        if self.user_header and not self.proxies:
            raise ValueError("--user-header is trusted from listed proxies only: add their addresses (--proxy)")
        for proxy in self.proxies:
            ipaddress.ip_address(proxy)
        return self

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
