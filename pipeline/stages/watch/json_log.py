"""Log lines as JSON, one object per line on standard error, for a collector: `NIGHTREAD_LOG=json`."""

from __future__ import annotations

import json
import os
import sys

from pipeline.wall_clock import read_utc

LOG = "NIGHTREAD_LOG"


def is_json_log() -> bool:
    """Whether the environment asks for it."""
    return os.environ.get(LOG, "") == "json"


def json_line(level: str, logger: str, message: str, **run: str | None) -> str:
    """Return one line: time (UTC), level, logger, message, and what is not empty of the run that it belongs to."""
    moment = read_utc().isoformat(timespec="milliseconds")
    values = {"time": moment, "level": level, "logger": logger, "message": message}
    return json.dumps(values | {name: value for name, value in run.items() if value}, ensure_ascii=False)


def write_json_line(level: str, logger: str, message: str, **run: str | None) -> None:
    """Write one line if the environment asks for it."""
    if is_json_log():
        print(json_line(level, logger, message, **run), file=sys.stderr, flush=True)
