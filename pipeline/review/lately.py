"""Cache that keeps values for some seconds."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Lately(Generic[Key, Value]):
    """Cache whose values expire after some seconds; safe to share between threads.

    Args:
        seconds: lifetime of a value.
        most: largest number of values.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds, self._most, self._lock = seconds, most, threading.Lock()
        self._kept: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key, read: Callable[[Key], Value]) -> Value:
        """Return the value of a key, read again if it is missing or too old; errors are not cached."""
        moment = time.monotonic()
        with self._lock:
            cached = self._kept.get(key)
        if cached is not None and moment - cached[0] < self._seconds:
            return cached[1]
        value = read(key)
        with self._lock:
            self._kept[key] = (moment, value)
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return value
