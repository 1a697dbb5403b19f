"""A hospital that sends arbitrary files: cases go in, and the outcome of each comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from pydicom import Dataset

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Instance, RejectionRow, SourceFile
from pipeline.data.ingest.ingest import ingest
from pipeline.data.sets.selection import select_slices
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.dicom.phantom.objects import Visit, datasets
from pipeline.dicom.phantom.patient import make_patient

PATIENT = make_patient(77, "MR", None, 32, 3)
Case = Callable[[list[Dataset]], list[bytes]]


def study(name: str, planted: str) -> list[Dataset]:
    visit = Visit(f"{planted}-{name}"[:60], f"{planted}^{name}", date(2025, 3, 4), "", planted, f"hospital/{name}")
    return list(datasets(PATIENT, visit))


@dataclass(frozen=True, slots=True)
class Hospital:
    """Everything that was sent and ingested."""

    settings: Settings
    keys: dict[str, list[str]]  # pixel objects of each case, in order of its files
    codes: dict[str, list[tuple[str, str]]]  # (code, sentence) of each case's refused files
    not_scored: dict[str, set[str]]
    slices: int


@pytest.fixture(scope="module")
def take_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, Case], str], Hospital]:
    """Return a function that writes the files of each case, ingests all of them at once, and returns the result."""

    def run(cases: Mapping[str, Case], planted: str) -> Hospital:
        place = tmp_path_factory.mktemp("hospital")
        settings = Settings(workspace=place / "ws")
        settings.workspace.mkdir()
        for name, case in cases.items():
            folder = place / planted / name
            folder.mkdir(parents=True)
            for number, data in enumerate(case(study(name, planted))):
                (folder / f"{number}.dcm").write_bytes(data)
        ingest([place / planted], settings)
        return looked_at(settings, place / planted, list(cases))

    return run


def looked_at(settings: Settings, root: Path, cases: list[str]) -> Hospital:
    keys, codes, unscored = {}, {}, {}
    with Catalogue.open(settings) as catalogue, Pseudonyms.open(settings) as pseudonyms, catalogue.reading() as session:
        chosen = select_slices(catalogue)
        refused = {series.series_id: series.code for series in chosen.not_scored}
        for name in cases:
            ids = [pseudonyms.path(path) for path in sorted((root / name).iterdir())]
            files = [session.get(SourceFile, path_id) for path_id in ids]
            instances = [
                session.get(Instance, file.instance_id) for file in files if file is not None and file.instance_id
            ]
            keys[name] = [row.pixel_key for row in instances if row is not None]
            rows = session.query(RejectionRow).filter(RejectionRow.subject.in_(ids)).all()
            codes[name] = [(row.code, row.sentence) for row in rows]
            unscored[name] = {
                refused[row.series_id] for row in instances if row is not None and row.series_id in refused
            }
    return Hospital(settings, keys, codes, unscored, len(chosen.slices))
