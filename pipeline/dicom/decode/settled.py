"""Whether a file is still being written, by watching it where clocks cannot tell."""

from __future__ import annotations

import os
import time
from pathlib import Path

WATCH_AT_MOST = 5.0  # seconds that one file is watched; a file that needs longer waits for the next ingest
_STEP = 0.1


def is_changing(path: Path, status: os.stat_result, settle_seconds: float) -> bool:
    """Return whether a file has changed within the last `settle_seconds`, or changes now.

    A modification time in the future (a scanner's or a server's wrong clock, a copy that preserves it) says nothing.
    Then the time of the last change of the inode counts, which the system sets by its own clock, and where that is in
    the future too or too recent, the file is watched.

    Raises:
        OSError: the file has gone.
    """
    if settle_seconds <= 0:
        return False
    now = time.time()
    if status.st_mtime <= now:
        return now - status.st_mtime < settle_seconds
    if now - status.st_ctime >= settle_seconds:
        return False
    age = max(0.0, now - status.st_ctime)
    return settle_seconds - age > WATCH_AT_MOST or _changes_within(path, status, settle_seconds - age)


def _changes_within(path: Path, before: os.stat_result, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(_STEP, left))
        after = path.lstat()
        if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
            after.st_size,
            after.st_mtime_ns,
            after.st_ctime_ns,
        ):
            return True
    return False
