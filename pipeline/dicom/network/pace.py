"""How fast and when a PACS may be asked: bytes a second, a pause after every series, hours off the peak."""

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

_LONGEST_NAP_SECONDS = 5.0  # within an association: a PACS gives up one that is silent for longer
_LOOK_SECONDS = 30.0
_SPAN = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")


class Pace:
    """Sleeps so that all threads together take no more than so many bytes a second.

    Args:
        bytes_per_second: None for as fast as it goes.
        pause_seconds: after every series.
        clock, sleep: of the operating system, or a test's.
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
        """Account for bytes that came, and sleep; what is too long a sleep within an association waits for `rest`."""
        if self._rate is None:
            return
        with self._guard:
            self._free_at = max(self._free_at, self._clock()) + size / self._rate
        self._nap(_LONGEST_NAP_SECONDS)

    def rest(self) -> None:
        """Sleep what is due still, and pause: between two series."""
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
    """Hours of the day, from `start` to before `end` on the clock of `zone`; over midnight where `end` is earlier."""

    start: clock_time
    end: clock_time
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, zone: str) -> Self:
        """Read `20:00-06:00`.

        Raises:
            ValueError: it is no such span, or an empty one.
        """
        found = _SPAN.fullmatch(text.strip())
        if found is None:
            raise ValueError("is no span of hours such as 20:00-06:00")
        hours = [int(number) for number in found.groups()]
        start, end = clock_time(hours[0], hours[1]), clock_time(hours[2] % 24, hours[3])
        if start == end:
            raise ValueError("starts when it ends; leave it out to ask at any hour")
        return cls(start, end, ZoneInfo(zone))

    def is_open(self, now: datetime) -> bool:
        """Whether a moment, which knows its time zone, lies within the hours."""
        local = now.astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= local < self.end
        return local >= self.start or local < self.end

    def wait(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Return within the hours. Looks at the clock again and again, so a change to summer time is no surprise."""
        while not self.is_open(now()):
            sleep(_LOOK_SECONDS)
