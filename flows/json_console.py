"""Console of Prefect's loggers as JSON lines, in place of its own text, while `NIGHTREAD_LOG=json`.

Prefect creates the handler by its name in the environment (see `flows`) while it is being imported, so it is imported
here only where it is used.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any, TextIO

from pipeline.stages.watch.json_log import json_line

WRITTEN = "nightread_written"  # on records that `flows.night_log` has written as JSON already
RUN = ("flow_run_id", "flow_run_name", "task_run_id", "task_run_name")


class JsonConsole(logging.StreamHandler[TextIO]):
    """Handler that writes a record as one line, with the run that it belongs to."""

    def __init__(self, stream: TextIO | None = None, styles: dict[str, str] | None = None) -> None:
        super().__init__(stream)  # colours (`styles`) come from Prefect's configuration, and JSON has none

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out records that are written already."""
        return not getattr(record, WRITTEN, False) and bool(super().filter(record))

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        run = {name: str(value) for name in RUN if (value := getattr(record, name, None))} or _read_run()
        if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
            run["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json_line(record.levelname.lower(), record.name, record.getMessage(), **run)


def _read_run() -> dict[str, Any]:
    """Return the run in which a library logs, without asking Prefect's server."""
    from prefect.context import FlowRunContext, TaskRunContext

    flow, task = FlowRunContext.get(), TaskRunContext.get()
    values: dict[str, Any] = {}
    if flow is not None and flow.flow_run is not None:
        values |= {"flow_run_id": str(flow.flow_run.id), "flow_run_name": flow.flow_run.name}
    if task is not None:
        values |= {"flow_run_id": str(task.task_run.flow_run_id or ""), "task_run_id": str(task.task_run.id)}
    return values
