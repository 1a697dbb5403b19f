"""The crosswalk: private, idempotent, bound to its key, and the only way back."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import Settings
from pipeline.data.catalogue.schema import Base
from pipeline.dicom.decode.attributes import RawIdentity
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.crosswalk_tables import metadata
from pipeline.dicom.identity.keyfile import create_key
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.errors import ConfigError, IdentityError

RAW = RawIdentity(
    issuer="ISS",
    patient_id="MRN-1",
    study_uid="1.2.3",
    series_uid="1.2.3.4",
    sop_uid="1.2.3.4.5",
    accession_number="ACC-9",
    study_date="20240229",
)


@pytest.fixture
def keys(settings: Settings) -> Iterator[Pseudonyms]:
    with Pseudonyms.open(settings) as opened:
        yield opened


@pytest.fixture
def crosswalk(settings: Settings) -> Iterator[Crosswalk]:
    with Crosswalk.open(settings) as opened:
        yield opened


def test_every_level_leads_back(crosswalk: Crosswalk, keys: Pseudonyms) -> None:
    ids = keys.of(RAW, "local")
    crosswalk.remember(ids, RAW)
    assert crosswalk.find_identity(ids.instance_id) == RAW
    assert crosswalk.find_identity(ids.series_id) == replace(RAW, sop_uid="")
    assert crosswalk.find_identity(ids.study_id) == replace(RAW, series_uid="", sop_uid="")
    assert crosswalk.find_identity(ids.patient_id) == RawIdentity(issuer="ISS", patient_id="MRN-1")
    assert crosswalk.reveal(ids.patient_id) == {"issuer": "ISS", "patient_id": "MRN-1"}
    with pytest.raises(IdentityError, match="0" * 12):
        crosswalk.find_identity("0" * 32)


def test_remembering_twice_changes_nothing_but_fills_empty_fields(crosswalk: Crosswalk, keys: Pseudonyms) -> None:
    bare = replace(RAW, accession_number="", study_date="")
    ids = keys.of(RAW, "local")
    for raw in (bare, RAW, bare, RAW, replace(RAW, accession_number="OTHER")):
        crosswalk.remember(ids, raw)
    assert crosswalk.find_identity(ids.instance_id) == RAW
    assert [crosswalk.count(kind) for kind in ("patient", "study", "series", "instance")] == [1, 1, 1, 1]  # type: ignore[arg-type]


def test_the_site_is_kept_where_the_file_names_no_issuer(crosswalk: Crosswalk, keys: Pseudonyms) -> None:
    raw = replace(RAW, issuer="")
    ids = keys.of(raw, "local")
    crosswalk.remember(ids, raw)
    assert crosswalk.find_identity(ids.patient_id).issuer == "local"


def test_a_transaction_is_kept_whole_or_not_at_all(crosswalk: Crosswalk, keys: Pseudonyms) -> None:
    ids = keys.of(RAW, "local")
    with pytest.raises(ValueError, match="stop"), crosswalk.transaction():
        crosswalk.remember(ids, RAW)
        raise ValueError("stop")
    assert crosswalk.count("patient") == 0
    crosswalk.remember(ids, RAW)  # what was rolled back is not taken for known
    assert crosswalk.count("patient") == 1


def test_studies_are_found_by_the_identifiers_of_a_hospital(crosswalk: Crosswalk, keys: Pseudonyms) -> None:
    second = replace(RAW, study_uid="1.2.9", series_uid="1.2.9.1", sop_uid="1.2.9.1.1", accession_number="ACC-10")
    other = replace(second, issuer="OTHER", study_uid="1.2.8", series_uid="1.2.8.1", sop_uid="1.2.8.1.1")
    for raw in (RAW, second, other):
        crosswalk.remember(keys.of(raw, "local"), raw)
    one, two, three = (keys.study(uid) for uid in ("1.2.3", "1.2.9", "1.2.8"))
    assert crosswalk.find_studies(study_uid=" 1.2.3\0") == [one]
    assert crosswalk.find_studies(accession="ACC-9") == [one]
    assert crosswalk.find_studies(accession="ACC-10") == sorted([two, three])
    assert crosswalk.find_studies(accession="ACC-10", issuer="OTHER") == [three]
    assert crosswalk.find_studies(patient_id="MRN-1", date="20240229") == sorted([one, two, three])
    assert crosswalk.find_studies(patient_id="MRN-1", date="20240301") == []
    assert crosswalk.find_studies() == crosswalk.find_studies(accession="  ") == []


def test_paths_that_are_not_text_are_returned_unchanged(crosswalk: Crosswalk, keys: Pseudonyms) -> None:
    odd = Path("/scans/M\udcfcller \N{SNOWMAN}.dcm")
    crosswalk.remember_path(keys.path(odd), odd)
    crosswalk.remember_path(keys.path(odd), odd)
    assert crosswalk.find_path(keys.path(odd)) == str(odd) and crosswalk.reveal(keys.path(odd)) == {"path": str(odd)}
    assert crosswalk.find_path("0" * 32) is None


def test_its_files_are_private_while_it_is_open(settings: Settings, crosswalk: Crosswalk, keys: Pseudonyms) -> None:
    crosswalk.remember(keys.of(RAW, "local"), RAW)
    folder = settings.key_file.parent
    files = {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()}
    assert {"crosswalk.db", "crosswalk.db-wal", "crosswalk.db-shm", "pseudonym.key"} <= set(files)
    assert set(files.values()) == {0o600} and stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_exposed_crosswalk_is_refused(settings: Settings) -> None:
    Crosswalk.open(settings).close()
    database = settings.key_file.parent / "crosswalk.db"
    database.chmod(0o644)
    with pytest.raises(IdentityError, match="mode 0644"):
        Crosswalk.open(settings)


def test_a_lost_key_is_reported_and_not_replaced(settings: Settings) -> None:
    Crosswalk.open(settings).close()
    settings.key_file.unlink()
    with pytest.raises(IdentityError, match="missing"):
        Crosswalk.open(settings)
    assert not settings.key_file.exists()
    create_key(settings.key_file)
    with pytest.raises(IdentityError, match=r"\([0-9a-f]+\).*\([0-9a-f]+\)"):
        Crosswalk.open(settings)


def test_pseudonyms_of_another_key_are_refused(crosswalk: Crosswalk) -> None:
    ids = Pseudonyms(bytes(32)).of(RAW, "local")
    with pytest.raises(IdentityError, match="rotated"):
        crosswalk.remember(ids, RAW)


def test_other_databases_are_a_configuration_error(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="mysql"):
        Crosswalk.open(settings.model_copy(update={"crosswalk_url": "mysql://host/db"}))


def test_its_tables_are_its_own() -> None:
    assert metadata is not Base.metadata
    assert "persons" in metadata.tables and "persons" not in Base.metadata.tables


def test_errors_and_logs_show_no_identifier(
    crosswalk: Crosswalk, keys: Pseudonyms, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    metadata.drop_all(crosswalk.engine)
    with pytest.raises(IdentityError, match="no such table") as caught:
        crosswalk.remember(keys.of(RAW, "local"), RAW)
    assert "MRN-1" not in str(caught.value) + caplog.text and "1.2.3" not in str(caught.value) + caplog.text


def test_a_lock_of_another_process_is_an_error_that_may_pass(settings: Settings, keys: Pseudonyms) -> None:
    quick = settings.model_copy(update={"database_wait_seconds": 0.1})
    with (
        Crosswalk.open(quick) as crosswalk,
        contextlib.closing(sqlite3.connect(crosswalk.engine.url.database)) as other,
    ):
        other.isolation_level = None
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(IdentityError, match="database is locked") as caught:
            crosswalk.remember(keys.of(RAW, "local"), RAW)
        assert caught.value.passing
        other.execute("ROLLBACK")
        crosswalk.remember(keys.of(RAW, "local"), RAW)
        assert crosswalk.count("patient") == 1
