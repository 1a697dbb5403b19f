"""Objects that push recorded as ours are refused at ingest, whatever a gateway made of them; so are maps of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from pydicom.uid import ParametricMapStorage, SegmentationStorage
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import ExportRow, FindingRow, Patient, RejectionRow, RunRow, Study
from pipeline.data.ingest.ingest import ingest


def record_push(settings: Settings, uid: str) -> None:
    """Record an object as pushed, with the rows that it refers to."""
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        session.add_all([Patient(patient_id="p", draw=0.5), RunRow(run_id="r", kind="score", folder="runs/r")])
        session.flush()
        session.add(Study(study_id="s", patient_id="p"))
        session.flush()
        named = {"study_id": "s", "patient_id": "p", "route": "ct", "model_sha256": "m", "run_id": "r"}
        finding = FindingRow(**named, score=1.0, flagged=True)
        session.add(finding)
        session.flush()
        one = {"finding_id": finding.id, "run_id": "r", "kind": "sc", "destination": "PACS", "state": "sent"}
        session.add(ExportRow(**one, object_uid=uid))


def test_the_record_of_what_was_pushed_refuses_it(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: Callable[..., Path]
) -> None:
    record_push(settings, "1.9.1")
    for number in (1, 2):
        write_file(tmp_path / "in" / f"{number}.dcm", SOPInstanceUID=f"1.9.{number}", number=number)
    report = ingest([tmp_path / "in"], settings)
    assert (report.added, report.rejected) == (1, {"made-by-nightread": 1})
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        sentence = session.scalars(select(RejectionRow.sentence)).one()
    assert "the record of what was pushed" in sentence and "1.9.1" not in sentence
    assert ingest([tmp_path / "in"], settings).skipped == 2


def test_segmentations_and_maps_never_enter_the_catalogue(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: Callable[..., Path]
) -> None:
    for number, kind in enumerate((SegmentationStorage, ParametricMapStorage), 1):
        write_file(tmp_path / "in" / f"{number}.dcm", number=number, SOPInstanceUID=f"1.9.{number}", SOPClassUID=kind)
    assert ingest([tmp_path / "in"], settings).rejected == {"not-an-image": 2}
