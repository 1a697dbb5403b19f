"""Configuration of the listener and of pulls: trusted senders, what to fetch, and limits on resources."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.config import Config, DecodeLimits
from pipeline.dicom.network.pace import Window
from pipeline.wall_clock import ZoneName

# PS3.5 6.2, VR AE: 16 characters of the default repertoire, no backslash, no control characters, not only blanks.
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")


def _ae_title(value: str) -> str:
    trimmed = value.strip()
    if not trimmed or not _AE_TITLE.fullmatch(trimmed):
        raise ValueError("is not an AE title: use 1 to 16 printable ASCII characters without backslash (PS3.5 6.2)")
    return trimmed


AeTitle = Annotated[str, AfterValidator(_ae_title)]


class TlsFiles(Config):
    """Files of a TLS connection in PEM: our certificate and key, and the authority that must have signed the peer's."""

    certificate: Path = Field(description="our certificate chain")
    key: Path = Field(description="our private key")
    authority: Path | None = Field(None, description="certificates of the authorities that must have signed the peer's")


class ListenConfig(Config):
    """Settings of `nightread listen`."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(11112, ge=0, le=65535, description="TCP port; 0 takes a free one")
    ae_title: AeTitle = Field("NIGHTREAD", description="our AE title; calls to any other title are rejected")
    allowed: tuple[AeTitle, ...] = Field((), description="AE titles of the senders that may call")
    allow_any: bool = Field(False, description="accept calls from any AE title")
    inbox: Path = Field(description="folder to write received objects to")
    quiet_seconds: float = Field(60.0, gt=0, description="a study without new objects for this long is complete")
    associations: int = Field(
        10, ge=1, le=1000, description="most associations at once; further ones are rejected as transient"
    )
    reserve_bytes: int = Field(
        2**30, ge=0, description="disk space to keep free; when it is reached, the answer is 0xA700"
    )
    idle_seconds: float = Field(60.0, gt=0, description="an association that is silent for this long is aborted")
    grace_seconds: float = Field(10.0, ge=0, description="time that running associations have to finish after a stop")
    tls: TlsFiles | None = Field(None, description="TLS files; default: no TLS")
    limits: DecodeLimits = DecodeLimits()

    @model_validator(mode="after")
    def _require_callers(self) -> Self:
        if not self.allowed and not self.allow_any:
            raise ValueError("no sender may call. Name AE titles with --allow, or give --allow-any")
        return self


class PullConfig(Config):
    """Settings of `nightread pull`."""

    source: str = Field(min_length=1, description="AETITLE@host:port, or the URL of a DICOMweb service")
    inbox: Path = Field(description="folder to write fetched objects to")
    ae_title: AeTitle = Field("NIGHTREAD", description="our AE title")
    since: date | None = Field(None, description="first study date")
    until: date | None = Field(None, description="last study date")
    days: int | None = Field(None, ge=1, description="number of last days instead, today included")
    modalities: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9]{2,16}$")], ...] = Field(
        (), description="modalities of the series to fetch"
    )
    study_description: str = Field("", max_length=64, description="pattern with * and ?, case is ignored")
    series_description: str = Field("", max_length=64, description="pattern with * and ?, case is ignored")
    everything: bool = Field(False, description="allow a pull without a filter")
    method: Literal["auto", "get", "move"] = Field(
        "auto", description="C-GET, C-MOVE, or auto: C-MOVE where the PACS has no C-GET"
    )
    move_host: str = Field("127.0.0.1", min_length=1, description="local address to receive the objects of a C-MOVE on")
    move_port: int = Field(11112, ge=0, le=65535, description="its port, as registered at the PACS")
    associations: int = Field(1, ge=1, le=16, description="studies to fetch at once, each over its own association")
    bytes_per_second: int | None = Field(None, ge=1, description="most bytes per second, all associations together")
    pause_seconds: float = Field(0.0, ge=0, description="pause after each series")
    window: str | None = Field(None, description="hours in which series are requested, such as 20:00-06:00")
    timezone: ZoneName = Field("UTC", description="IANA time zone of `window` and `days`")
    stop_after_window: bool = Field(False, description="stop outside these hours instead of waiting")
    silent_seconds: float = Field(60.0, gt=0, description="the pull fails if the PACS is silent for this long")
    reserve_bytes: int = Field(2**30, ge=0, description="disk space to keep free")
    tls: TlsFiles | None = Field(None, description="TLS files; default: no TLS")
    limits: DecodeLimits = DecodeLimits()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        filters = (self.since, self.until, self.days, self.modalities, self.study_description, self.series_description)
        if not any(filters) and not self.everything:
            raise ValueError("without a filter, the whole PACS would be fetched. Give a date, or --all")
        if self.days is not None and (self.since or self.until):
            raise ValueError("--days replaces --since and --until. Give either --days or the other two")
        if self.since is not None and self.until is not None and self.until < self.since:
            raise ValueError(f"--until {self.until} is before --since {self.since}. Swap them")
        if self.window is not None:
            Window.parse(self.window, self.timezone)
        return self
