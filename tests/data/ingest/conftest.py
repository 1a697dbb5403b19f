"""Small DICOM files, a decoder without processes, and the final contents of a catalogue and a store."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

from pipeline.config import DecodeLimits, Settings
from pipeline.data.ingest import ingest as ingest_module
from pipeline.dicom.decode.read import DecodedInstance, read_instance
from pipeline.errors import Rejected

WriteFile = Callable[..., Path]


class ReadHere:
    """Replaces DecodeWorkers where separate processes would only cost time."""

    def __init__(self, _workers: int, limits: DecodeLimits) -> None:
        self._limits = limits

    def __enter__(self) -> ReadHere:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_many(self, paths: Iterable[Path]) -> Iterator[tuple[Path, DecodedInstance | Rejected]]:
        for path in paths:
            try:
                yield path, read_instance(path, self._limits)
            except Rejected as rejected:
                yield path, rejected


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The ingest module, decoding in this process."""
    monkeypatch.setattr(ingest_module, "DecodeWorkers", ReadHere)
    return ingest_module


def write_dicom(path: Path, number: int = 1, series: int = 1, *, rle: bool = False, **changes: Any) -> Path:
    """Write a 16 x 16 CT slice; `changes` are DICOM keywords, `pixels` its values."""
    noise = np.random.default_rng([series, number]).integers(0, 4096, (16, 16)).astype("<u2")
    pixels = changes.pop("pixels", noise)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"1.2.3.{series}.1.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.3.{series}", f"1.2.3.{series}.1"
    ds.PatientName, ds.PatientID, ds.PatientAge, ds.PatientSex = f"Name^{series}", f"PID{series}", "050Y", "F"
    ds.StudyDate, ds.AccessionNumber, ds.Modality, ds.ImageType = (
        "20260102",
        f"ACC{series}",
        "CT",
        ["ORIGINAL", "PRIMARY"],
    )
    ds.SeriesDescription, ds.Manufacturer, ds.ConvolutionKernel, ds.InstanceNumber = "AX", "ACME", "B30f", number
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, float(number)], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.RescaleSlope, ds.RescaleIntercept = [0.7, 0.7], 1, 1, -1024
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *pixels.shape, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = pixels.tobytes()
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    if rle:
        ds.compress(RLELossless, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def write_file() -> WriteFile:
    return write_dicom


@pytest.fixture
def busy_folder(tmp_path: Path) -> Path:
    """A folder with every case that an ingest can meet: 40 files in several folders."""
    folder = tmp_path / "inbox"
    for series in range(1, 4):
        for number in range(1, 9):
            write_dicom(folder / f"s{series}" / f"{number}.dcm", number, series)
    write_dicom(folder / "t" / "resend.dcm", 1, 1, rle=True)
    write_dicom(folder / "t" / "corrected.dcm", 2, 1, ConvolutionKernel="B70f")
    write_dicom(folder / "t" / "conflict.dcm", 3, 1, pixels=np.zeros((16, 16), "<u2"))
    write_dicom(folder / "t" / "nobody.dcm", 1, 7, PatientID="")
    write_dicom(folder / "t" / "other-patient.dcm", 99, 2, PatientID="SOMEBODY")
    (folder / "t" / "empty.dcm").write_bytes(b"")
    (folder / "t" / "garbage.dcm").write_bytes(b"no DICOM at all " * 64)
    (folder / "t" / "truncated.dcm").write_bytes((folder / "s1" / "4.dcm").read_bytes()[:-200])
    members = tmp_path / "members"
    with zipfile.ZipFile(folder / "u.zip", "w") as archive:
        for number in range(1, 9):
            archive.write(write_dicom(members / f"{number}.dcm", number, 5), f"CD/{number}.dcm")
    return folder


@pytest.fixture
def other_settings(tmp_path: Path, settings: Settings) -> Callable[[str], Settings]:
    """Further workspaces that share the pseudonym key, so that their catalogues can be compared."""
    from pipeline.dicom.identity.pseudonyms import Pseudonyms

    Pseudonyms.open(settings).close()

    def make(name: str) -> Settings:
        other = settings.model_copy(update={"workspace": tmp_path / name})
        other.key_file.parent.mkdir(parents=True, mode=0o700)
        other.key_file.touch(0o600)
        other.key_file.write_bytes(settings.key_file.read_bytes())
        return other

    return make


def dump(settings: Settings) -> dict[str, Any]:
    """Return everything that an ingest has written, without times and row numbers; verifies every pixel object."""
    from sqlalchemy import select

    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.data.catalogue.schema import Base
    from pipeline.data.store.pixel_store import PixelStore
    from pipeline.dicom.identity.crosswalk import Crosswalk
    from pipeline.dicom.identity.crosswalk_tables import CrosswalkBase

    state: dict[str, Any] = {}
    with Catalogue.open(settings) as catalogue, Crosswalk.open(settings) as crosswalk:
        for where, engine, metadata in (
            ("catalogue", catalogue.engine, Base.metadata),
            ("crosswalk", crosswalk.engine, CrosswalkBase.metadata),
        ):
            with engine.connect() as connection:
                for table in metadata.sorted_tables:
                    columns = [c for c in table.columns if c.name != "id" and c.type.python_type.__name__ != "datetime"]
                    rows = [repr(tuple(row)) for row in connection.execute(select(*columns))]
                    state[f"{where}.{table.name}"] = sorted(rows)
    store = PixelStore(settings.store)
    state["pixels"] = sorted(store.keys())
    for key in state["pixels"]:
        store.verify(key)
    return state


@pytest.fixture
def state_of() -> Callable[[Settings], dict[str, Any]]:
    return dump
