"""Pictures of flagged scans in Prefect's records: in the workspace's own database, a site's database, or a server.

Prefect keeps an image artefact as a data URL in a row, so that the picture is in its database, and once more in the
event that tells of the artefact.
"""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text

from pipeline.config import Settings
from pipeline.data.catalogue.database import translate_errors
from pipeline.data.catalogue.scrub import scrub_file

ROWS = {
    "artifact_collection": "type = 'image' AND key LIKE 'flagged-%'",
    "artifact": "type = 'image' AND key LIKE 'flagged-%'",
    "events": "event LIKE 'prefect.artifact%'",
}
DATABASE, SERVER = "PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_API_URL"
SERVER_SECONDS = 30.0


def erase_prefect_pictures(settings: Settings) -> tuple[int, list[str]]:
    """Remove the pictures of flagged scans from Prefect's records; return the number of records, and what is left.

    The database of the environment (PREFECT_API_DATABASE_CONNECTION_URL) is rewritten like the workspace's own. Of a
    server that is only reached by its address (PREFECT_API_URL), the pictures are deleted, but not their events.

    Raises:
        CatalogueError: somebody else has a database open and does not let go, or it does not answer.
    """
    statements = [f"DELETE FROM {table} WHERE {rows}" for table, rows in ROWS.items()]
    files = sorted((settings.workspace / "prefect").glob("*.db"))
    count, url = sum(scrub_file(file, statements) for file in files), os.environ.get(DATABASE, "")
    if url.startswith("postgresql"):
        return count + _erase_from_postgresql(url, statements), []
    if url.startswith("sqlite") and (file := make_url(url).database):
        return count + (scrub_file(Path(file), statements) if Path(file).is_file() else 0), []
    if server := os.environ.get(SERVER):
        more, left = _erase_from_server(server)
        return count + more, [left]
    return count, []


def _erase_from_postgresql(url: str, statements: list[str]) -> int:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with translate_errors("be freed of Prefect's pictures"), engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            present = connection.execute(text("SELECT to_regclass('artifact') IS NOT NULL")).scalar()
            changed = sum(connection.execute(text(one)).rowcount for one in statements) if present else 0
            for table in ROWS if present else ():
                connection.execute(text(f"VACUUM FULL {table}"))
            return changed
    finally:
        engine.dispose()


def _erase_from_server(url: str) -> tuple[int, str]:
    """Delete the pictures through the server's API."""
    place, count = url.rpartition("@")[2], 0
    chosen = {"artifacts": {"type": {"any_": ["image"]}, "key": {"like_": "flagged-"}}, "limit": 200}
    try:
        while pictures := [one for one in _ask(f"{url}/artifacts/filter", "POST", chosen) if _is_flagged(one)]:
            for one in pictures:
                _ask(f"{url}/artifacts/{one['id']}", "DELETE")
            count += len(pictures)
    except (OSError, ValueError) as error:
        return count, (
            f"pictures of flagged scans on Prefect's server at {place}, which did not answer ({type(error).__name__}): "
            "delete its artefacts of type image whose keys begin with flagged-"
        )
    return count, (
        f"copies of pictures in the events of Prefect's server at {place}, until they expire, and deleted rows on its "
        "disk, until its database is vacuumed"
    )


def _is_flagged(artefact: dict[str, Any]) -> bool:
    return str(artefact.get("key", "")).startswith("flagged-")


def _ask(url: str, method: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=SERVER_SECONDS) as answer:
        return json.loads(answer.read() or "null")
