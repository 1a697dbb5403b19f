"""Failures of disk or database, and values that they cannot store: a clear error, and nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event

from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest
from pipeline.data.store.object_storage import LocalObjects
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.decode.read import read_instance
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.errors import CatalogueError, IdentityError

State = Callable[[Settings], dict[str, Any]]
MakeSettings = Callable[[str], Settings]


@pytest.fixture
def quiet_state(
    in_process: ModuleType,
    busy_folder: Path,
    other_settings: MakeSettings,
    state_of: State,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """The final state after an undisturbed ingest, in batches of seven."""
    monkeypatch.setattr("pipeline.data.ingest.write_pixels._BATCH", 7)
    quiet = other_settings("quiet")
    ingest([busy_folder], quiet)
    return state_of(quiet)


def test_disk_full_in_the_store(
    quiet_state: dict[str, Any],
    busy_folder: Path,
    other_settings: MakeSettings,
    state_of: State,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, written = other_settings("full"), []

    def fill(_self: object, name: str, data: bytes) -> None:
        written.append(name)
        if len(written) > 15:
            raise OSError(28, "No space left on device")
        original(_self, name, data)

    original = LocalObjects._replace
    with monkeypatch.context() as patch, pytest.raises(CatalogueError, match="No space") as caught:
        patch.setattr(LocalObjects, "_replace", fill)
        ingest([busy_folder], settings)
    assert str(busy_folder) not in str(caught.value)
    # Whole batches before the failure, and the files before it in the batch that it broke.
    assert 1 <= len(state_of(settings)["catalogue.instances"]) <= 15
    ingest([busy_folder], settings)
    assert state_of(settings) == quiet_state


@pytest.mark.parametrize("attribute", ["_catalogue", "_crosswalk"])
def test_disk_full_in_a_database(
    quiet_state: dict[str, Any],
    in_process: ModuleType,
    busy_folder: Path,
    other_settings: MakeSettings,
    state_of: State,
    monkeypatch: pytest.MonkeyPatch,
    attribute: str,
) -> None:
    settings = other_settings("full")
    original = in_process._Intake.__enter__

    def limited(self: Any) -> Any:
        opened = original(self)
        engine = getattr(self, attribute).engine
        engine.dispose()
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        engine.dispose()
        event.listen(engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count={pages + 1}"))
        return opened

    with monkeypatch.context() as patch, pytest.raises((CatalogueError, IdentityError), match="full"):
        patch.setattr(in_process._Intake, "__enter__", limited)
        ingest([busy_folder], settings)
    ingest([busy_folder], settings)
    assert state_of(settings) == quiet_state


def test_identifier_that_no_database_can_hold(
    in_process: ModuleType,
    tmp_path: Path,
    settings: Settings,
    write_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in (1, 2, 3):
        write_file(tmp_path / "in" / f"{number}.dcm", number, number)

    def spoil(path: Path, limits: Any) -> Any:
        decoded = read_instance(path, limits)
        if path.name == "2.dcm":
            return replace(decoded, identity=replace(decoded.identity, accession_number="\udc80"))
        return decoded

    monkeypatch.setitem(in_process.DecodeWorkers.read_many.__globals__, "read_instance", spoil)
    report = ingest([tmp_path / "in"], settings)
    assert (report.added, report.rejected) == (2, {"corrupt-header": 1})
    with Crosswalk.open(settings) as crosswalk:
        assert crosswalk.count("instance") == 2
        assert crosswalk.count("path") == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_read_only_store(in_process: ModuleType, busy_folder: Path, settings: Settings, state_of: State) -> None:
    PixelStore(settings.store)
    Path(settings.store).mkdir()
    Path(settings.store).chmod(0o500)
    with pytest.raises(CatalogueError, match="Permission denied"):
        ingest([busy_folder], settings)
    Path(settings.store).chmod(0o700)
    assert ingest([busy_folder], settings).added == 33


def test_store_that_is_a_file(in_process: ModuleType, busy_folder: Path, settings: Settings) -> None:
    Path(settings.store).write_text("")
    with pytest.raises(CatalogueError, match="pixel store"):
        ingest([busy_folder], settings)
    Path(settings.store).unlink()
    assert ingest([busy_folder], settings).added == 33
