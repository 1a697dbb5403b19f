"""What the listener listens on, whom it trusts, and what one sender may cost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.config import Config, DecodeLimits

# PS3.5 6.2, VR AE: 16 characters of the default repertoire, no backslash, no control characters, not only blanks.
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")


def _ae_title(value: str) -> str:
    trimmed = value.strip()
    if not trimmed or not _AE_TITLE.fullmatch(trimmed):
        raise ValueError("is no AE title: 1 to 16 printable ASCII characters without backslash (PS3.5 6.2)")
    return trimmed


AeTitle = Annotated[str, AfterValidator(_ae_title)]


class TlsFiles(Config):
    """Files of a TLS connection in PEM: our certificate and key, and the authority that the other side must have."""

    certificate: Path = Field(description="our certificate chain")
    key: Path = Field(description="our private key")
    authority: Path | None = Field(None, description="certificates that the other side's must be signed by")


class ListenConfig(Config):
    """Settings of `nightread listen`."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(11112, ge=0, le=65535, description="TCP port; 0 takes a free one")
    ae_title: AeTitle = Field("NIGHTREAD", description="our AE title; a call to any other is rejected")
    allowed: tuple[AeTitle, ...] = Field((), description="AE titles that may call")
    allow_any: bool = Field(False, description="let every AE title call")
    inbox: Path = Field(description="folder that objects are written to")
    quiet_seconds: float = Field(60.0, gt=0, description="a study without new objects for so long is complete")
    associations: int = Field(10, ge=1, le=1000, description="associations at once; the next is rejected as transient")
    reserve_bytes: int = Field(2**30, ge=0, description="disk space that is left free; beyond it 0xA700 is answered")
    idle_seconds: float = Field(60.0, gt=0, description="an association that is silent for so long is aborted")
    grace_seconds: float = Field(10.0, ge=0, description="what running associations get when the listener is stopped")
    tls: TlsFiles | None = Field(None, description="listen with TLS")
    limits: DecodeLimits = DecodeLimits()

    @model_validator(mode="after")
    def _says_whom_to_trust(self) -> Self:
        if not self.allowed and not self.allow_any:
            raise ValueError("names nobody who may call: list the AE titles of the senders, or allow any")
        return self
