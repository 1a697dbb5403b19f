"""Both databases: SQLite in the workspace, and a PostgreSQL that the tests start themselves on a private socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.config import Settings
from pipeline.data.catalogue import Catalogue
from pipeline.dicom.attributes import InstanceAttributes, RawIdentity
from pipeline.dicom.identity import Ids, Pseudonyms

PLACES = ("/usr/local/bin", "/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/15/bin")
# PostgreSQL refuses to run as root; any unprivileged account will do.
ACCOUNTS = ("postgres", "nobody")


def binary(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *PLACES)))


def account() -> dict[str, object]:
    """Arguments for subprocess that leave root; none needed for others."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next((known[name] for name in ACCOUNTS if name in known), None)
    if entry is None:
        pytest.skip("PostgreSQL refuses root, and there is no account `postgres` or `nobody` to run it as")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    for _ in range(200):
        if server.poll() is not None:
            pytest.skip(f"PostgreSQL does not start here: {log.read_text()[-300:]}")
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    pytest.fail(f"PostgreSQL was not ready in 20 s: {log.read_text()[-300:]}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The socket folder of a running PostgreSQL with the superuser `nightread`."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if not (binary("initdb") and binary("postgres")):
        pytest.skip("no PostgreSQL binaries here")
    run_as = account()
    folder = Path(tempfile.mkdtemp(prefix="nr-pg-"))
    log = folder / "log"
    try:
        if run_as:
            os.chown(folder, run_as["user"], run_as["group"])  # type: ignore[arg-type]
        data = str(folder / "data")
        subprocess.run(
            [binary("initdb"), "-D", data, "-U", "nightread", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, cwd=folder, **run_as,
        )  # fmt: skip
        command = [binary("postgres"), "-D", data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, **run_as)
        try:
            wait_until_ready(f"host={folder} user=nightread dbname=postgres", server, log)
            yield str(folder)
        finally:
            server.terminate()
            server.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_database(postgres: str) -> Callable[[], str]:
    """Makes an empty PostgreSQL database and returns its URL."""
    import psycopg

    def make() -> str:
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(f"host={postgres} user=nightread dbname=postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql://nightread@/{name}?host={postgres}"

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def any_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings of a fresh workspace, once on each database."""
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"catalogue_url": request.getfixturevalue("new_database")()})


@pytest.fixture
def catalogue(any_settings: Settings) -> Iterator[Catalogue]:
    with Catalogue.open(any_settings) as opened:
        yield opened


@pytest.fixture
def ids_of() -> Callable[..., Ids]:
    """Pseudonyms of a made-up instance: `ids_of(sop, patient=, study=, series=)`."""
    pseudonyms = Pseudonyms(b"\x01" * 32)

    def make(sop: str = "1", patient: str = "P1", study: str = "S1", series: str = "R1") -> Ids:
        identity = RawIdentity(
            patient_id=patient, study_uid=f"1.2.{study}", series_uid=f"1.2.{series}", sop_uid=f"1.2.9.{sop}"
        )
        return pseudonyms.of(identity, "site")

    return make


@pytest.fixture
def attributes() -> InstanceAttributes:
    return InstanceAttributes(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="CT",
        kernel="B30f",
        rows=4,
        columns=4,
        positions=((0.0, 0.0, 1.5),),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=(0.7, 0.7),
    )
