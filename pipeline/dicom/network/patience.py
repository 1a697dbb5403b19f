"""Retries of network requests after failures that may pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import ConfigError, SendError

ATTEMPTS, FIRST_PAUSE_SECONDS = 4, 0.5
Answer = TypeVar("Answer")


def retry_patiently(
    ask: Callable[[], Answer], attempts: int = ATTEMPTS, sleep: Callable[[float], None] = time.sleep
) -> Answer:
    """Return the result of `ask`, waiting twice as long after each failure that may pass.

    Raises:
        SendError: the last failure.
    """
    for attempt in range(1, attempts + 1):
        try:
            return ask()
        except SendError as error:
            if not error.passing or attempt == attempts:
                raise
            sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    raise ConfigError(f"The number of attempts is {attempts}; it must be at least 1.")
