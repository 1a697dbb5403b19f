"""Log lines as JSON, one object per line on standard error, for a collector: `NIGHTREAD_LOG=json`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.wall_clock import read_utc

LOG = "NIGHTREAD_LOG"
_around: dict[str, str] = {}  # of this process: whatever thread or library writes a line, it belongs to this night
_ended: dict[str, str] = {}  # what Prefect says about a run after its end still belongs to it


def is_json_log() -> bool:
    """Whether the environment asks for it."""
    return os.environ.get(LOG, "") == "json"


@contextmanager
def log_within(**run: str | None) -> Iterator[None]:
    """Add the ids of a run to every line that this process writes while the block runs."""
    before = dict(_around)
    _around.update({name: value for name, value in run.items() if value})
    try:
        yield
    finally:
        _ended.clear()
        _ended.update(_around)
        _around.clear()
        _around.update(before)


def json_line(level: str, logger: str, message: str, **run: str | None) -> str:
    """Return one line: time (UTC), level, logger, message, and what is not empty of the run that it belongs to.

    It is ASCII: a terminal without UTF-8 would spoil other characters, and some of them end lines.
    """
    moment = read_utc().isoformat(timespec="milliseconds")
    values = {"time": moment, "level": level, "logger": logger, "message": message}
    around = _around or (_ended if run.get("flow_run_id") in _ended.values() else {})
    return json.dumps(values | around | {name: value for name, value in run.items() if value})


def write_json_line(level: str, logger: str, message: str, **run: str | None) -> None:
    """Write one line if the environment asks for it."""
    if is_json_log():
        print(json_line(level, logger, message, **run), file=sys.stderr, flush=True)
