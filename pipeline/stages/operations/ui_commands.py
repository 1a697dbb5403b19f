"""Commands that open the pages of MLflow and Prefect on a workspace; they work on any free port."""

from __future__ import annotations

import shlex
from pathlib import Path

MLFLOW_PORT, PREFECT_PORT = 5000, 4200


def mlflow_command(workspace: Path, uri: str | None = None, programs: str = "") -> str:
    """Return the shell command for MLflow's pages; change the port at will.

    Args:
        workspace: the workspace.
        uri: the configured store (`mlflow_uri`), if it is not the workspace's own; it may hold a password, so the
            command names the variable instead.
        programs: prefix of the program, such as `.venv/bin/`.
    """
    store = f"sqlite:///{workspace}/mlflow/mlflow.db" if uri is None else "$NIGHTREAD_MLFLOW_URI"
    store = shlex.quote(store) if uri is None else f'"{store}"'
    return (
        f"MLFLOW_DISABLE_TELEMETRY=true {programs}mlflow ui --backend-store-uri {store} --host 127.0.0.1 "
        f"--port {MLFLOW_PORT}"
    )


def mlflow_address(page: str) -> str:
    """Return the address of a page (`tracking.experiment.find_page`) that `mlflow_command` serves."""
    return f"http://127.0.0.1:{MLFLOW_PORT}/{page}"


def prefect_command(workspace: Path, programs: str = "") -> str:
    """Return the shell command for Prefect's pages; change the port at will.

    The port is a variable and not `--port`: Prefect's pages ask the address that the variables say, so with the option
    they would look for their data on port 4200. The last two variables keep the server from reporting its use.
    """
    home = shlex.quote(f"{workspace}/prefect")
    return (
        f"PREFECT_HOME={home} PREFECT_SERVER_API_PORT={PREFECT_PORT} DO_NOT_TRACK=1 "
        f"PREFECT_SERVER_ANALYTICS_ENABLED=false {programs}prefect server start"
    )
