"""A patient who was forgotten is in no byte of PostgreSQL's tables, of the bucket, or of Prefect's database."""

from __future__ import annotations

import http.server
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydicom import dcmread
from sqlalchemy import make_url

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.stages.audit.forget import forget
from pipeline.stages.audit.prefect_pictures import erase_prefect_pictures
from pipeline.stages.audit.reproduce import reproduce
from tests.conftest import binary
from tests.flows.test_killed_night_on_services import Site, bucket, site  # noqa: F401
from tests.flows.test_shared_night import environment

PICTURE = "data:image/png;base64,iVBOR"  # as a PNG begins; the code that MLflow keeps beside a model has the rest
NIGHT = "import sys; from flows.nightly import run_nightly; run_nightly([sys.argv[1]], [], [], sys.argv[2])"


def dump(url: str) -> bytes:
    """Return a database as pg_dump writes it: every row of every table, as text."""
    place = make_url(url)
    command = [binary("pg_dump"), "-h", place.query["host"], "-U", "nightread", str(place.database)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def files_of_tables(postgres: str, url: str) -> list[bytes]:
    """Return the content of the server's files of one database, with what deleted rows have left there."""
    with psycopg.connect(f"host={postgres} user=nightread dbname={make_url(url).database}", autocommit=True) as server:
        server.execute("CHECKPOINT")
        (oid,) = server.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone() or (0,)
    return [file.read_bytes() for file in (Path(postgres) / "data" / "base" / str(oid)).iterdir() if file.is_file()]


def holding(parts: dict[str, list[bytes]], words: Collection[bytes]) -> set[str]:
    return {name for name, contents in parts.items() if any(word in one for one in contents for word in words)}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_no_byte_is_left_in_databases_and_bucket(
    site: Site,  # noqa: F811
    postgres: str, new_database: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings, prefect = site.settings, new_database().replace("postgresql:", "postgresql+asyncpg:")
    env = environment(settings, PREFECT_API_DATABASE_CONNECTION_URL=prefect, NIGHTREAD_SCORING="{runner: threads}")
    command = [sys.executable, "-c", NIGHT, str(site.inbox), str(settings.workspace)]
    done = subprocess.run(command, env=env, cwd=site.inbox, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    urls = {"catalogue": settings.catalogue, "crosswalk": settings.crosswalk, "mlflow": settings.mlflow}
    urls["prefect"] = prefect

    def read() -> dict[str, list[bytes]]:
        """Return everything that is searched, by where it is."""
        parts = {f"{name}, dumped": [dump(url)] for name, url in urls.items()}
        parts |= {f"{name}, on disk": files_of_tables(postgres, url) for name, url in urls.items()}
        return parts | {"workspace": [file.read_bytes() for file in settings.workspace.rglob("*") if file.is_file()]}

    with Catalogue.open(settings) as catalogue:
        finding = catalogue.list_findings(flagged=True)[0]
    with Crosswalk.open(settings) as crosswalk:
        number = crosswalk.find_identity(finding.study_id).patient_id
    heads = {file: dcmread(file) for file in site.inbox.rglob("*.dcm")}
    mine = [ds for ds in heads.values() if number == ds.PatientID]
    uids = {str(ds[name].value).encode() for ds in mine for name in ("StudyInstanceUID", "SOPInstanceUID")}
    words = {number.encode(), *uids}
    store = PixelStore(settings.store)
    keys = {key for key in list(store.keys()) if any((store.get(key, 0) == ds.pixel_array).all() for ds in mine)}
    picture = PICTURE.encode()

    before = read()
    assert keys and holding(before, words) >= {"crosswalk, dumped", "crosswalk, on disk"}
    assert holding(before, [picture]) >= {"prefect, dumped"}
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", prefect)
    report = forget(settings, finding.patient_id)
    after = read()
    assert holding(after, words) == set()
    assert holding(after, [picture]) == set() and report.counts["Prefect records"] > 0
    assert not keys & set(store.keys())
    assert any("write-ahead log" in sentence for sentence in report.unreachable)
    assert any("older versions in the bucket" in sentence for sentence in report.unreachable)
    assert reproduce(settings, str(finding.id)).state == "erased"


class Artefacts(http.server.BaseHTTPRequestHandler):
    """Prefect's artefact routes, as far as an erasure asks them."""

    images: dict[str, str]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/api/artifacts/filter" and asked["artifacts"]["type"] == {"any_": ["image"]}
        self._answer(200, [{"id": number, "key": key} for number, key in self.images.items()])

    def do_DELETE(self) -> None:
        del self.images[self.path.rpartition("/")[2]]
        self._answer(204, None)

    def _answer(self, code: int, value: Any) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Artefacts.images = {"1": "flagged-1", "2": "flagged-2", "3": "unflagged-1"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Artefacts) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/api"
        serving.shutdown()


def test_a_server_elsewhere_is_asked_to_delete_and_its_disk_is_named(
    settings: Settings, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_DATABASE_CONNECTION_URL", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", server)
    count, left = erase_prefect_pictures(settings)
    assert count == 2 and Artefacts.images == {"3": "unflagged-1"}
    assert len(left) == 1 and "until they expire" in left[0]
    monkeypatch.setenv("PREFECT_API_URL", "http://user:hidden@127.0.0.1:9/api")
    count, left = erase_prefect_pictures(settings)
    assert count == 0 and "did not answer" in left[0] and "hidden" not in left[0]
    monkeypatch.delenv("PREFECT_API_URL")
    assert erase_prefect_pictures(settings) == (0, [])


def test_the_workspaces_own_database_keeps_neither_pictures_nor_the_events_that_repeat_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    file = settings.workspace / "prefect" / "prefect.db"
    file.parent.mkdir()
    with sqlite3.connect(file) as database:
        for table in ("artifact", "artifact_collection"):
            database.execute(f"CREATE TABLE {table} (type, key, data)")
            rows = [("image", "flagged-1", PICTURE * 999), ("image", "generated-sheet", "s"), ("table", "flagged", "t")]
            database.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)
        database.execute("CREATE TABLE events (event, payload)")
        created = "prefect.artifact-collection.created"
        database.executemany("INSERT INTO events VALUES (?, ?)", [(created, PICTURE), ("prefect.flow-run.Pending", "")])
    database.close()
    assert erase_prefect_pictures(settings) == (3, [])
    assert PICTURE.encode() not in file.read_bytes()
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT key FROM artifact").fetchall() == [("generated-sheet",), ("flagged",)]
    database.close()
