"""Clocks: wall time that people read, and monotonic time that nothing moves; a difference between them is a jump."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.wall_clock import read_epoch_seconds

JUMP_SECONDS = 60.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Tick:
    """Both clocks at one moment: `wall` in seconds since 1970, `steady` in seconds since the machine started."""

    boot: str
    wall: float
    steady: float

    @classmethod
    def now(cls) -> Tick:
        """Read both clocks. The steady one counts time asleep where the system offers such a clock."""
        steady = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
        return cls(_BOOT.read_text().strip() if _BOOT.exists() else "", read_epoch_seconds(), steady)

    @classmethod
    def read(cls, values: Mapping[str, Any] | None) -> Tick | None:
        """Return a tick that was written down; None if nothing was."""
        try:
            return cls(str(values["boot"]), float(values["wall"]), float(values["steady"])) if values else None
        except (KeyError, TypeError, ValueError):
            return None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return asdict(self)

    def after(self, seconds: float) -> Tick:
        """Return the moment so many seconds later."""
        return Tick(self.boot, self.wall + seconds, self.steady + seconds)

    def has_passed(self, later: Tick) -> bool:
        """Whether another moment is this one or later, by the clock that nobody moves; of another machine, by the wall
        clock.
        """
        return later.steady >= self.steady if self.boot == later.boot else later.wall >= self.wall


def jump_between(earlier: Tick | None, later: Tick) -> float:
    """Return by how many seconds somebody moved the wall clock between two ticks; 0 for less than a minute.

    After a restart of the machine the clocks cannot be compared, and nothing is a jump.
    """
    if earlier is None or earlier.boot != later.boot:
        return 0.0
    jump = (later.wall - earlier.wall) - (later.steady - earlier.steady)
    return jump if abs(jump) >= JUMP_SECONDS else 0.0
