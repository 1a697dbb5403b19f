"""What the listener and the puller may do: whom they trust, what they ask for, and what it may cost."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.config import Config, DecodeLimits, ZoneName
from pipeline.dicom.network.pace import Window

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


class PullConfig(Config):
    """Settings of `nightread pull`."""

    source: str = Field(min_length=1, description="AETITLE@host:port, or the URL of a DICOMweb service")
    inbox: Path = Field(description="folder that objects are written to")
    ae_title: AeTitle = Field("NIGHTREAD", description="our AE title")
    since: date | None = Field(None, description="first study date")
    until: date | None = Field(None, description="last study date")
    days: int | None = Field(None, ge=1, description="the last days instead, today included")
    modalities: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9]{2,16}$")], ...] = Field((), description="of series")
    study_description: str = Field("", max_length=64, description="pattern with * and ?, upper and lower case alike")
    series_description: str = Field("", max_length=64, description="pattern with * and ?, upper and lower case alike")
    everything: bool = Field(False, description="allow a pull without a filter")
    method: Literal["auto", "get", "move"] = Field(
        "auto", description="C-GET, C-MOVE, or C-MOVE where there is no C-GET"
    )
    move_host: str = Field("127.0.0.1", min_length=1, description="address that objects of a C-MOVE are taken at")
    move_port: int = Field(11112, ge=0, le=65535, description="and the port, as the PACS knows it")
    associations: int = Field(
        1, ge=1, le=16, description="studies fetched at once, each over an association of its own"
    )
    bytes_per_second: int | None = Field(None, ge=1, description="most bytes a second, all associations together")
    pause_seconds: float = Field(0.0, ge=0, description="pause after every series")
    window: str | None = Field(None, description="hours in which series are asked for, such as 20:00-06:00")
    timezone: ZoneName = Field("UTC", description="IANA name; the clock of window and days")
    stop_after_window: bool = Field(False, description="stop outside the hours instead of waiting for them")
    silent_seconds: float = Field(60.0, gt=0, description="a PACS that is silent for so long is given up")
    reserve_bytes: int = Field(2**30, ge=0, description="disk space that is left free")
    tls: TlsFiles | None = Field(None, description="speak TLS")
    limits: DecodeLimits = DecodeLimits()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        filters = (self.since, self.until, self.days, self.modalities, self.study_description, self.series_description)
        if not any(filters) and not self.everything:
            raise ValueError("names no filter, and would fetch the whole PACS: give a date, or say that you want all")
        if self.days is not None and (self.since or self.until):
            raise ValueError("days stands for since and until: give one or the other")
        if self.since is not None and self.until is not None and self.until < self.since:
            raise ValueError(f"until {self.until} lies before since {self.since}")
        if self.window is not None:
            Window.parse(self.window, self.timezone)
        return self
