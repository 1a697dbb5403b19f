"""What was read lately, so that it is not read again for a few seconds."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Lately(Generic[Key, Value]):
    """Keeps values for some seconds; shared by threads.

    Args:
        seconds: that a value is good for.
        most: values that are kept.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds, self._most, self._lock = seconds, most, threading.Lock()
        self._kept: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key, read: Callable[[Key], Value]) -> Value:
        """Return the value of a key, read where it is not there or too old; an error is not remembered."""
        moment = time.monotonic()
        with self._lock:
            kept = self._kept.get(key)
        if kept is not None and moment - kept[0] < self._seconds:
            return kept[1]
        value = read(key)
        with self._lock:
            self._kept[key] = (moment, value)
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return value
