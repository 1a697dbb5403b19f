"""Prefect flows: the only package that imports prefect. A flow tells the story; the arithmetic is in `pipeline`.

Prefect reads its environment when it is imported, so its home, its silence towards the network and its patience with a
slow start are set here, before any flow module imports it.
"""

from __future__ import annotations

import os
from pathlib import Path

WORKSPACE = Path(os.environ.get("NIGHTREAD_WORKSPACE") or "nightread-data").absolute()

os.environ.setdefault("PREFECT_HOME", str(WORKSPACE / "prefect"))
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect makes one level only
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
os.environ.setdefault("PREFECT_RESULTS_DEFAULT_SERIALIZER", "json")  # law 6: no pickles
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
