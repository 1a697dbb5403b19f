"""Ingest: what it accepts, what it rejects, and that nothing is added twice."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

import pipeline
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Instance, InstanceVersion, Patient, Series, SourceFile
from pipeline.data.ingest import enter_batch
from pipeline.data.ingest.ingest import ingest
from pipeline.data.ingest.reading_rules import reading_rules
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.errors import Rejected, RejectionCode

State = Callable[[Settings], dict[str, Any]]
WriteFile = Callable[..., Path]


def rows(settings: Settings, *what: Any) -> list[Any]:
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        return session.scalars(select(*what)).all() if len(what) == 1 else session.execute(select(*what)).all()


def outcomes(settings: Settings) -> dict[str, str]:
    """Outcome by file name, found through the crosswalk."""
    noted = rows(settings, SourceFile.path_id, SourceFile.outcome)
    with Crosswalk.open(settings) as crosswalk:
        return {Path(crosswalk.find_path(path_id) or "").name: outcome for path_id, outcome in noted}


def test_a_busy_folder_through_real_workers(busy_folder: Path, settings: Settings) -> None:
    heard: list[tuple[int, int]] = []
    several = settings.model_copy(update={"workers": 3})
    report = ingest([busy_folder], several, on_progress=lambda done, total: heard.append((done, total)))
    rejected = {"conflicting-duplicate": 2, "empty-file": 1, "not-dicom": 1, "truncated-pixel-data": 1}
    assert report.rejected == rejected
    assert (report.files, report.added, report.same, report.new_versions, report.skipped) == (40, 33, 1, 1, 0)
    assert report.files == report.added + report.same + report.new_versions + sum(report.rejected.values())
    assert json.loads(json.dumps(report.to_json()))["rejected"] == rejected
    assert heard[-1] == (40, 40)
    assert len(rows(settings, Instance)) == 33
    assert len(list(PixelStore(settings.store).keys())) == 35  # two orphans: the pixels of the two conflicts
    with Catalogue.open(settings) as catalogue:
        assert catalogue.count_rejections() == rejected
        assert {row.level for row in catalogue.list_rejections()} == {"file"}


def test_pixels_attributes_and_identity_arrive(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile
) -> None:
    pixels = np.arange(256, dtype="<u2").reshape(16, 16)
    write_file(tmp_path / "in" / "a.dcm", 5, 3, pixels=pixels)
    ingest([tmp_path / "in"], settings)
    instance, patient = rows(settings, Instance)[0], rows(settings, Patient)[0]
    np.testing.assert_array_equal(PixelStore(settings.store).get(instance.pixel_key), pixels[None])
    assert instance.attributes["kernel"] == "B30f"
    assert instance.attributes["positions"] == [[0.0, 0.0, 5.0]]
    with Pseudonyms.open(settings) as pseudonyms:
        assert patient.patient_id == pseudonyms.patient("local", "PID3")
        assert instance.instance_id == pseudonyms.instance("1.2.3.3.1.5")
    with Crosswalk.open(settings) as crosswalk:
        assert crosswalk.find_identity(instance.instance_id).sop_uid == "1.2.3.3.1.5"
        assert crosswalk.find_identity(patient.patient_id).patient_id == "PID3"
    assert outcomes(settings) == {"a.dcm": "accepted"}


def test_again_is_skipped_without_decoding(
    in_process: ModuleType, busy_folder: Path, settings: Settings, state_of: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ingest([busy_folder], settings)
    before = state_of(settings)
    decoded: list[Path] = []

    class Watching(in_process.DecodeWorkers):
        def read_many(self, paths: Any) -> Any:
            return super().read_many(decoded.append(path) or path for path in paths)

    monkeypatch.setattr(in_process, "DecodeWorkers", Watching)
    again = ingest([busy_folder], settings)
    assert decoded == []
    assert (again.files, again.skipped, again.added, again.rejected) == (first.files, first.files, 0, {})
    assert state_of(settings) == before


def test_the_folder_may_be_named_in_any_way(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "in" / "a.dcm")
    ingest([tmp_path / "in"], settings)
    monkeypatch.chdir(tmp_path)
    assert ingest([Path("in")], settings).skipped == 1
    assert ingest([Path("in/../in/a.dcm")], settings).skipped == 1


def test_touched_file_is_the_same_object(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile
) -> None:
    file = write_file(tmp_path / "in" / "a.dcm")
    ingest([file], settings)
    os.utime(file, ns=(1, 1))
    report = ingest([file], settings)
    assert (report.same, report.added) == (1, 0)
    assert outcomes(settings) == {"a.dcm": "accepted"}
    assert ingest([file], settings).skipped == 1


def test_resend_correction_and_conflict(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile
) -> None:
    write_file(tmp_path / "in" / "a.dcm")
    ingest([tmp_path / "in"], settings)
    key = rows(settings, Instance)[0].pixel_key
    write_file(tmp_path / "in" / "b.dcm", rle=True)
    write_file(tmp_path / "in" / "c.dcm", SliceThickness=2)
    write_file(tmp_path / "in" / "d.dcm", pixels=np.zeros((16, 16), "<u2"))
    report = ingest([tmp_path / "in"], settings)
    assert (report.same, report.new_versions, report.rejected) == (1, 1, {"conflicting-duplicate": 1})
    instance, former = rows(settings, Instance)[0], rows(settings, InstanceVersion)[0]
    assert (instance.pixel_key, instance.version) == (key, 2)
    assert (instance.attributes["slice_thickness_mm"], former.attributes["slice_thickness_mm"]) == (2.0, 1.0)
    expected = {"a.dcm": "accepted", "b.dcm": "same", "c.dcm": "accepted", "d.dcm": "conflicting-duplicate"}
    assert outcomes(settings) == expected


def test_a_file_that_becomes_readable_is_accepted_and_its_rejection_stays_on_record(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile
) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(b"still nothing " * 50)
    assert ingest([file], settings).rejected == {"not-dicom": 1}
    assert ingest([file], settings).skipped == 1
    write_file(file)
    assert ingest([file], settings).added == 1
    assert outcomes(settings) == {"a.dcm": "accepted"}
    with Catalogue.open(settings) as catalogue, Pseudonyms.open(settings) as pseudonyms:
        assert catalogue.list_rejections() == [], "it has been read since"
        assert [(row.subject, row.code) for row in catalogue.list_rejections(with_settled=True)] == [
            (pseudonyms.path(file), "not-dicom")
        ]


def test_what_older_rules_refused_is_read_again_once(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "in" / "accepted.dcm")
    broken = write_file(tmp_path / "in" / "broken.dcm", 2)
    broken.write_bytes(broken.read_bytes()[:-40])
    assert ingest([tmp_path / "in"], settings).rejected == {"truncated-pixel-data": 1}
    assert ingest([tmp_path / "in"], settings).skipped == 2
    for older in ("older", ""):  # another version, and one that did not record its rules
        with Catalogue.open(settings) as catalogue, catalogue.session() as session:
            session.execute(update(SourceFile).values(rules=older))
        again = ingest([tmp_path / "in"], settings)
        assert (again.skipped, again.rejected) == (1, {"truncated-pixel-data": 1}), "accepted ones are not read again"
        assert ingest([tmp_path / "in"], settings).skipped == 2


def test_what_today_accepts_enters_though_it_was_refused(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise Rejected(RejectionCode.NOT_AN_IMAGE, "An older version did not read this.")

    with monkeypatch.context() as older:
        older.setattr(in_process, "refuse_statement", refuse)
        older.setattr(enter_batch, "reading_rules", lambda: "older")
        write_file(tmp_path / "a.dcm")
        assert ingest([tmp_path / "a.dcm"], settings).rejected == {"not-an-image": 1}
    assert ingest([tmp_path / "a.dcm"], settings).added == 1
    assert outcomes(settings) == {"a.dcm": "accepted"}


@pytest.mark.parametrize("changed", ["code", "decoder"])
def test_rules_follow_code_and_decoders(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name_rules = reading_rules.__wrapped__
    before = name_rules()
    assert before == name_rules() == reading_rules() and len(before) == 16
    if changed == "decoder":
        version = importlib.metadata.version
        newer = lambda name: version(name) + (".1" if name == "pyjpegls" else "")  # noqa: E731
        monkeypatch.setattr(importlib.metadata, "version", newer)
    else:
        package = Path(pipeline.__file__).parent
        for room in ("dicom", "data"):
            shutil.copytree(package / room, tmp_path / room)
        monkeypatch.setattr(pipeline, "__file__", str(tmp_path / "__init__.py"))
        assert name_rules() == before, "the place of the package does not count"
        with (tmp_path / "dicom" / "decode" / "plausible.py").open("a") as file:
            file.write("_MOST_VALUES = 2\n")
    assert name_rules() != before


def test_burned_in_text_follows_the_policy_of_the_day(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile
) -> None:
    file = write_file(tmp_path / "a.dcm", BurnedInAnnotation="YES")
    strict = settings.model_copy(update={"burned_in": "reject"})
    assert ingest([file], strict).rejected == {"burned-in-text": 1}
    assert list(PixelStore(settings.store).keys()) == []
    assert ingest([file], strict).rejected == {"burned-in-text": 1}
    assert ingest([file], settings).added == 1


def test_lost_pixels_are_taken_in_again(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile
) -> None:
    for number in (1, 2):
        write_file(tmp_path / "in" / f"{number}.dcm", number)
    ingest([tmp_path / "in"], settings)
    key = rows(settings, Instance)[0].pixel_key
    (Path(settings.store) / key[:2] / f"{key}.zarr.zip").unlink()
    report = ingest([tmp_path / "in"], settings)
    assert (report.same, report.skipped) == (1, 1)
    PixelStore(settings.store).verify(key)


def test_empty_patient_id_is_coded(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile
) -> None:
    write_file(tmp_path / "a.dcm", PatientID=" ")
    ingest([tmp_path / "a.dcm"], settings)
    assert [patient.identified for patient in rows(settings, Patient)] == [False]


def test_series_attributes_do_not_depend_on_batches(
    busy_folder: Path,
    other_settings: Callable[[str], Settings],
    in_process: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = []
    for size in (1, 3, 100):
        monkeypatch.setattr("pipeline.data.ingest.write_pixels._BATCH", size)
        other = other_settings(f"w{size}")
        ingest([busy_folder], other)
        counts.append({row.series_id: row.attributes for row in rows(other, Series)})
    assert counts[0] == counts[1] == counts[2]
    assert sorted("kernel" in attributes for attributes in counts[0].values()) == [False, True, True, True, True]


def test_missing_path_is_a_rejection_and_others_go_on(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile
) -> None:
    report = ingest([tmp_path / "nowhere", write_file(tmp_path / "a.dcm")], settings)
    assert (report.added, report.rejected) == (1, {"unreadable": 1})
