"""The wall clock that everything written down is dated by: the machine's own, unless a simulation has moved it.

Simulations (`pipeline.stages.reliability`) move it, in their own process, to live through months in minutes and to test
what a clock does that jumps. Ages of files compare with the machine's clock, since the file system's is that one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

_moved = timedelta()


def _zone_name(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not an IANA time zone such as Europe/Berlin") from None
    return name


ZoneName = Annotated[str, AfterValidator(_zone_name)]


def read_utc() -> datetime:
    """Return the time in UTC, with its time zone."""
    return datetime.now(UTC) + _moved


def read_stored_time() -> datetime:
    """Return the time in UTC without time zone and parts of a second, as every `*_at` column stores it."""
    return read_utc().replace(tzinfo=None, microsecond=0)


def read_epoch_seconds() -> float:
    """Return seconds since 1970, as `time.time` does."""
    return time.time() + _moved.total_seconds()


def move(by: timedelta) -> None:
    """Move the clock of this process, forwards or back; for simulations only."""
    global _moved
    _moved += by
