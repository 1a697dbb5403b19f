"""Nested mappings and lists, as in JSON: find a key at any depth, and leave one out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def find_values(values: Any, key: str) -> Iterator[Any]:
    """Yield the values of a key in nested mappings and lists, outer ones first."""
    if isinstance(values, dict):
        if key in values:
            yield values[key]
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from find_values(value, key)


def without(values: Any, key: str) -> Any:
    """Return nested mappings and lists without a key."""
    if isinstance(values, dict):
        return {name: without(value, key) for name, value in values.items() if name != key}
    return [without(value, key) for value in values] if isinstance(values, list | tuple) else values
