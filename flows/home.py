"""Prefect's home folder, with its database readable by its owner only: flow parameters name paths and routes."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline import durable

ELSEWHERE = ("PREFECT_API_URL", "PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")


def make_home() -> Path:
    """Create the home folder and, unless the server or its database is elsewhere, its database, where missing."""
    home = Path(os.environ["PREFECT_HOME"])
    durable.make_private(home.parent)
    durable.make_shared(home)
    if not any(os.environ.get(name) for name in ELSEWHERE):
        durable.create_database(home / "prefect.db")
    return home
