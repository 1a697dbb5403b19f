"""Progress of long work: a bar on a terminal, a line from time to time in a file, a journal or the log of a flow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FIRST_S, EVERY_S = 10.0, 60.0  # short work stays silent

Advance = Callable[[int, int | None], None]
WriteLine = Callable[[str], object]

_log: ContextVar[WriteLine | None] = ContextVar("log of progress", default=None)


@contextmanager
def progress_into(write_line: WriteLine) -> Iterator[None]:
    """Give every line of progress within the block to a log, instead of standard error or a bar."""
    token = _log.set(write_line)
    try:
        yield
    finally:
        _log.reset(token)


@contextmanager
def show_progress(label: str, unit: str = "") -> Iterator[Advance]:
    """Yield `advance(done, total)`, which reports on standard error or in a log (`progress_into`).

    `total` is None while it is unknown.

    Args:
        label: what is being done.
        unit: of the numbers, such as "images".
    """
    write_line = _log.get()
    bar = write_line is None and sys.stderr.isatty()
    with _show_bar(label) if bar else _write_lines(write_line or _print, label, unit) as advance:
        yield advance


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _write_lines(write_line: WriteLine, label: str, unit: str) -> Iterator[Advance]:
    began = time.monotonic()
    due, last = began + FIRST_S, ""
    first: tuple[int, float] | None = None  # what an earlier call did, and loading, say nothing about the speed

    def advance(done: int, total: int | None) -> None:
        """Write a line if one is due; the last one at once, since what follows it may take long as well."""
        nonlocal due, last, first
        last, now = _line(label, unit, done, total), time.monotonic()
        first = first or (done, now)
        if done == total and now - began >= FIRST_S:
            write_line(f"{last}, after {duration_words(now - began)}")
            last = ""
        elif now >= due:
            write_line(f"{last}{_speed(done - first[0], now - first[1], None if total is None else total - done)}")
            due, last = now + EVERY_S, ""

    yield advance
    if last and time.monotonic() - began >= FIRST_S:
        write_line(f"{last}, after {duration_words(time.monotonic() - began)}")


def _speed(done: int, seconds: float, left: int | None) -> str:
    """Return the speed and the time left; "" where nothing was measured yet."""
    if done <= 0 or seconds <= 0:
        return ""
    speed = done / seconds
    return f", {speed:.3g} per second" + (f", {duration_words(left / speed)} left" if left is not None else "")


def _line(label: str, unit: str, done: int, total: int | None) -> str:
    counted = f"{done}" if total is None else f"{done} of {total}"
    return f"{label}: {counted} {unit}".rstrip()


def duration_words(seconds: float) -> str:
    """Return a duration as a person says it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@contextmanager
def _show_bar(label: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
