"""Real files of pydicom and pydicom-data, small images made by hand, and one pool of decode workers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.read import DecodedInstance, read_instance
from pipeline.dicom.intake.sandbox import DecodeWorkers
from pipeline.errors import Rejected


def _roots() -> dict[str, Path]:
    roots = {"pydicom": Path(pydicom.__file__).parent / "data" / "test_files"}
    spec = importlib.util.find_spec("data_store")  # the import name of the package pydicom-data
    if spec is not None and spec.submodule_search_locations:
        roots["pydicom-data"] = Path(spec.submodule_search_locations[0]) / "data"
    return roots


@pytest.fixture(scope="session")
def real_files() -> dict[str, Path]:
    """Every file of both packages by `<package>/<relative path>`."""
    return {
        f"{name}/{path.relative_to(root).as_posix()}": path
        for name, root in _roots().items()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def read_real(real_files: dict[str, Path]) -> Callable[[str], DecodedInstance | Rejected]:
    """Read a real file by its name, once for the whole session; skip where its package is not installed."""
    results: dict[str, DecodedInstance | Rejected] = {}

    def read(name: str) -> DecodedInstance | Rejected:
        if name not in real_files:
            pytest.skip("the package pydicom-data is not installed")
        if name not in results:
            try:
                results[name] = read_instance(real_files[name], DecodeLimits())
            except Rejected as rejected:
                results[name] = rejected
        return results[name]

    return read


@pytest.fixture
def limits() -> DecodeLimits:
    """Limits small enough for a test to reach them."""
    return DecodeLimits(decoded_bytes=256 * 2**20, memory_bytes=2**30, seconds=20.0)


@pytest.fixture(scope="session")
def workers() -> Iterator[DecodeWorkers]:
    """One pool of two workers for the whole folder."""
    with DecodeWorkers(2, DecodeLimits(decoded_bytes=256 * 2**20, memory_bytes=2**30, seconds=20.0)) as pool:
        yield pool


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    """Build a valid CT data set around stored values [H, W], [F, H, W] or [H, W, 3]; keywords are set on top."""

    def make(pixels: np.ndarray, **attributes: Any) -> Dataset:
        colour = pixels.ndim == 3 and pixels.shape[-1] == 3
        frames = 1 if colour or pixels.ndim == 2 else len(pixels)
        rows, columns = pixels.shape[:2] if colour else pixels.shape[-2:]
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = (
            CTImageStorage,
            "1.2.3.4",
            "1.2",
            "1.2.3",
        )
        ds.PatientID, ds.PatientName, ds.Modality, ds.InstanceNumber = "P1", "Test^Patient", "CT", 1
        ds.Rows, ds.Columns, ds.SamplesPerPixel = rows, columns, 3 if colour else 1
        ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
        ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
        if colour:
            ds.PlanarConfiguration = 0
        if frames > 1:
            ds.NumberOfFrames = frames
        data = pixels.tobytes()
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        return ds

    return make


@pytest.fixture
def write_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Write a data set as a DICOM file and return its path."""

    def write(ds: Dataset, name: str = "image.dcm", syntax: str = ExplicitVRLittleEndian) -> Path:
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        path = tmp_path / name
        ds.save_as(path, enforce_file_format=True)
        return path

    return write
