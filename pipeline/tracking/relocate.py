"""Adaptation of MLflow's store to a copied or moved workspace, by rewriting its absolute artefact locations.

MLflow has no relative locations: a store keeps `file:///old/place/mlflow/artifacts/...` for every experiment, run and
model, so a copied workspace would keep writing into the original. They are therefore rewritten when the store is
opened from another path than the stored one, in one transaction and before MLflow itself reads them. The
`MLmodel` file of a registered model still has its original location, but MLflow loads the files beside it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from pipeline.errors import ConfigError

ARTIFACTS = "mlflow/artifacts"  # relative to the workspace
# All columns of MLflow's tables with artefact locations.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_BUSY_SECONDS = 60.0


def artifact_root(workspace: Path) -> str:
    """Return the URI of the artefact folder of a workspace's own MLflow store."""
    return (workspace.absolute() / ARTIFACTS).as_uri()


def relocate(workspace: Path, database: Path) -> int:
    """Set the locations in a workspace's own MLflow database to `workspace`; return the number of changes.

    Other locations (an object store, a chosen folder) are unchanged. If it is opened alternately from two paths (a
    container and its host), the locations follow the last one.

    Raises:
        ConfigError: the database cannot be read or written.
    """
    if not database.is_file():
        return 0
    new = artifact_root(workspace)
    try:
        # Disable the driver's implicit transactions: BEGIN IMMEDIATE below takes the lock before anything is read.
        with contextlib.closing(sqlite3.connect(database, _BUSY_SECONDS, isolation_level=None)) as store:
            if not (former := _former_roots(store, new)):
                return 0
            store.execute("BEGIN IMMEDIATE")
            changed = sum(_rewrite(store, table, column, old, new) for old in former for table, column in LOCATIONS)
            store.execute("COMMIT")
            return changed
    except sqlite3.Error as error:
        raise ConfigError(
            f"The MLflow store {database.name} of the workspace cannot be read or written ({error}). End what "
            "locks it, make it and its folder writable, free some space on its disk, or restore it from a backup: "
            "nightread restore FILE"
        ) from None


def _former_roots(store: sqlite3.Connection, new: str) -> list[str]:
    """Return the artefact roots of other paths, longest first, since one path may contain another."""
    tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "experiments" not in tables:  # MLflow has not made its tables yet
        return []
    rows = store.execute("SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location IS NOT NULL")
    ours = {location for (location,) in rows if location.startswith("file:") and location.endswith(f"/{ARTIFACTS}")}
    return sorted(ours - {new}, key=len, reverse=True)


def _rewrite(store: sqlite3.Connection, table: str, column: str, old: str, new: str) -> int:
    # The slash distinguishes `/data/ws-2/...` from `/data/ws`: only the root itself and paths below it match.
    done = store.execute(
        f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
        f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
        {"old": old, "new": new},
    )
    return done.rowcount
