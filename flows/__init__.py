"""Prefect flows: the only package that imports prefect. A flow lists the steps; the work is done in `pipeline`.

Prefect reads its environment when it is imported, so its home folder, its telemetry and its start-up timeout are set
here, before any flow module imports it. Nothing is written here: the home folder is created where Prefect is imported,
in `flows.policies`.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

from pipeline.stages.watch.json_log import is_json_log

WORKSPACE = Path(os.environ.get("NIGHTREAD_WORKSPACE") or "nightread-data").absolute()

os.environ.setdefault("PREFECT_HOME", str(WORKSPACE / "prefect"))
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
os.environ.setdefault("PREFECT_RESULTS_DEFAULT_SERIALIZER", "json")  # law 6: no pickles
# Prefect keeps leases of concurrency slots in memory, and forgets them when the machine dies: its slots stay taken.
os.environ.setdefault("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "prefect.server.concurrency.lease_storage.filesystem")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
# The night's own sentences go into Prefect's pages, and stay off the screen of whoever started it.
os.environ.setdefault("PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL", "INFO")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
if is_json_log():  # everything that this process writes to standard error, libraries' warnings included
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS"] = "flows.json_console.JsonConsole"
    os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"
    logging.captureWarnings(True)
warnings.filterwarnings(
    "ignore", "Failed to create the Prefect home directory", UserWarning
)  # it creates one level only
