"""Texts for times and states."""

from __future__ import annotations

from datetime import datetime, timedelta

from pipeline.data.catalogue.schema import now


def age(moment: datetime) -> str:
    """Return how long ago something was: `40 min ago`, `3 h ago`, `yesterday`, `5 days ago`, or the date."""
    passed = now() - moment
    if passed < timedelta(minutes=1):
        return "just now"
    if passed < timedelta(hours=1):
        return f"{passed // timedelta(minutes=1)} min ago"
    if passed < timedelta(hours=24):
        return f"{passed // timedelta(hours=1)} h ago"
    days = (now().date() - moment.date()).days
    if days <= 1:
        return "yesterday"
    return f"{days} days ago" if days < 30 else f"{moment:%d %b %Y}"


def state_words(state: str) -> str:
    """Return a state in plain words: `second opinion` for `second-opinion`."""
    return state.replace("-", " ")


def thousands(count: int) -> str:
    """Return a count with narrow spaces between thousands."""
    return f"{count:,}".replace(",", "\u202f")
