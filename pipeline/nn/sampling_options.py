"""Limits of the options of `sample`: steps, guidance, temperature and others, which callers pass as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Collection

from pipeline.errors import ConfigError


def require_between(name: str, value: float, low: float, high: float = math.inf, above: bool = False) -> None:
    """Check one option.

    Args:
        name: the option's name, for the message.
        value: NaN is outside of every range.
        low, high: the smallest and the largest allowed value.
        above: whether `low` itself is not allowed.

    Raises:
        ConfigError: the value lies outside.
    """
    if (low < value if above else low <= value) and value <= high and math.isfinite(value):
        return
    rule = f"{'above' if above else 'at least'} {low:g}" + (f" and at most {high:g}" if math.isfinite(high) else "")
    raise ConfigError(f"{name} is {value:g}, but it must be {rule}. Choose a value in that range.")


def require_one_of(name: str, value: str, choices: Collection[str]) -> None:
    """Check an option that is a word.

    Raises:
        ConfigError: it is not one of `choices`, which the message lists.
    """
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}. Choose one of {', '.join(choices)}.")
