"""Record of recent views, since fetching pixels without the page of their scan counts as a view too."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

WINDOW_S = 900.0
REMEMBERED = 10_000


class Looks:
    """Remember pairs of reader and scan for a quarter of an hour; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, int], float] = OrderedDict()

    def is_new(self, name: str, finding_id: int) -> bool:
        """Record a view; return whether it is this reader's first of this scan within the window."""
        key, moment = (name, finding_id), time.monotonic()
        with self._lock:
            last = self._seen.pop(key, None)
            self._seen[key] = moment
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        return last is None or moment - last > WINDOW_S
