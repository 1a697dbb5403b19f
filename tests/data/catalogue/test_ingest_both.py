"""Ingest on either database, by two processes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import func, select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Instance, SourceFile
from pipeline.data.ingest.ingest import ingest
from pipeline.data.store.pixel_store import PixelStore

CODE = (
    "import sys; from pathlib import Path; from pipeline.config import Settings;"
    "from pipeline.data.ingest.ingest import ingest;"
    "ingest([Path(sys.argv[1])], Settings.model_validate_json(sys.argv[2]))"
)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Twelve small slices, one with a NUL in its texts, which PostgreSQL cannot store, and a file that is not DICOM."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    for number in range(1, 13):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"1.2.3.{number}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID, ds.Modality = "1.2", "1.2.3", "P", "CT"
        ds.Rows = ds.Columns = 8
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.ManufacturerModelName = "a\0b" if number == 12 else "c"
        ds.ImageType = ["ORIGINAL", "PRIM\0ARY" if number == 12 else "PRIMARY"]
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.PixelData = np.full((8, 8), number, "<u2").tobytes()
        ds.save_as(folder / f"{number:02}.dcm", enforce_file_format=True)
    (folder / "garbage").write_bytes(b"nothing " * 100)
    return folder


@pytest.mark.parametrize("any_settings", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
def test_two_processes_at_once(inbox: Path, any_settings: Settings) -> None:
    settings = any_settings.model_copy(update={"workers": 1})
    command = [sys.executable, "-c", CODE, str(inbox), settings.model_dump_json()]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate()[1].decode()[-600:], process.returncode) for process in running] == [("", 0)] * 2
    again = ingest([inbox], settings)
    assert (again.files, again.skipped) == (13, 13)
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        assert session.scalar(select(func.count()).select_from(SourceFile)) == 13
        rows = list(session.execute(select(Instance.pixel_key, Instance.attributes)))
        assert catalogue.count_rejections()["not-dicom"] == 1
    # A NUL is left out at the door, so that both databases keep all twelve slices and say the same of them.
    assert sorted(attributes["scanner"] for _, attributes in rows) == ["ab"] + ["c"] * 11
    assert all(attributes["image_type"] == ["ORIGINAL", "PRIMARY"] for _, attributes in rows)
    store = PixelStore(settings.store)
    for key, _ in rows:
        store.verify(key)
