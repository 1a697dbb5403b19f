"""Limits on how fast and when to query a PACS: bytes per second, a pause after each series, off-peak hours."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from datetime import time as clock_time
from typing import Self
from zoneinfo import ZoneInfo

_LONGEST_NAP_SECONDS = 5.0  # within an association, because a PACS aborts one that is silent for longer
_LOOK_SECONDS = 30.0
_SPAN = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")


class Pace:
    """Sleeps so that all threads together receive at most a given number of bytes per second.

    Args:
        bytes_per_second: None for no limit.
        pause_seconds: pause after each series.
        clock, sleep: functions of the operating system; tests pass their own.
    """

    def __init__(
        self,
        bytes_per_second: int | None,
        pause_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._pause, self._clock, self._sleep = bytes_per_second, pause_seconds, clock, sleep
        self._guard = threading.Lock()
        self._free_at = clock()

    def spent(self, size: int) -> None:
        """Account for received bytes and sleep; the part of a sleep too long for an association is left to `rest`."""
        if self._rate is None:
            return
        with self._guard:
            # A virtual time at which the line is free again; threads queue behind each other on it.
            self._free_at = max(self._free_at, self._clock()) + size / self._rate
        self._nap(_LONGEST_NAP_SECONDS)

    def rest(self) -> None:
        """Sleep the remaining time and the pause; call it between two series."""
        self._nap(float("inf"))
        if self._pause:
            self._sleep(self._pause)

    def _nap(self, most: float) -> None:
        with self._guard:
            due = self._free_at - self._clock()
        if due > 0:
            self._sleep(min(due, most))


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of the day from `start` up to `end` in the time zone `zone`; across midnight where `end` is earlier."""

    start: clock_time
    end: clock_time
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, zone: str) -> Self:
        """Read `20:00-06:00`.

        Raises:
            ValueError: it is not such a span, or an empty one.
        """
        match = _SPAN.fullmatch(text.strip())
        if match is None:
            raise ValueError("is not a span of hours such as 20:00-06:00")
        hours = [int(number) for number in match.groups()]
        start, end = clock_time(hours[0], hours[1]), clock_time(hours[2] % 24, hours[3])
        if start == end:
            raise ValueError("starts when it ends; leave it out to allow all hours")
        return cls(start, end, ZoneInfo(zone))

    def is_open(self, now: datetime) -> bool:
        """Whether a moment (with time zone) lies within the hours."""
        local = now.astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= local < self.end
        return local >= self.start or local < self.end

    def wait(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Sleep until the hours begin. The clock is read repeatedly, so that changes of summer time do no harm."""
        while not self.is_open(now()):
            sleep(_LOOK_SECONDS)
