"""At the door: values that are not UIDs, and the same object in another transfer syntax."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pynetdicom.dsutils import encode

from pipeline.config import DecodeLimits
from pipeline.dicom.network.inbox import Inbox
from pipeline.dicom.network.receive import Receiver

INVALID = ["../../x", "1.2.840.abc", "1..2", ".1.2", "1.2.", "1.2\\3.4", "1." * 32 + "1"]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """Answers without a network."""
    with Inbox.open(tmp_path / "inbox") as inbox:
        yield Receiver(inbox, DecodeLimits(settle_seconds=0), 0, lambda event: None)


@pytest.fixture
def native(datasets: list[Dataset]) -> Dataset:
    """A slice with native pixels."""
    ds = datasets[0]
    if ds.file_meta.TransferSyntaxUID.is_compressed:
        ds.decompress()
    ds.add_new(0x00280106, "US", 7)  # its VR is ambiguous where it is implicit
    return ds


def take(receiver: Receiver, ds: Dataset, syntax: str = ExplicitVRLittleEndian, instance: str | None = None) -> int:
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = encode(ds, implicit, little)
    assert data is not None
    answer = receiver.take(str(ds.SOPClassUID), instance or str(ds.SOPInstanceUID), str(syntax), BytesIO(data))
    return int(answer.Status)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", INVALID)
def test_a_value_that_is_not_a_uid_is_refused(receiver: Receiver, native: Dataset, keyword: str, value: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setattr(native, keyword, value)
    named = value if keyword == "SOPInstanceUID" else str(native.SOPInstanceUID)
    assert take(receiver, native, instance=named) == 0xA900
    assert list(receiver.inbox.folder.rglob("*.dcm")) == [] and receiver.counts == {"refused": 1}


def test_warnings_of_libraries_do_not_quote_a_malformed_uid() -> None:
    """In a process of its own, as pytest catches warnings; without the filter pydicom prints the value."""
    code = "from pydicom import Dataset; d = Dataset(); d.StudyInstanceUID = 'Zyxwname/../x'"
    noisy, quiet = (
        subprocess.run([sys.executable, "-c", f"{start}; {code}"], capture_output=True, text=True, check=True).stderr
        for start in ("pass", "import pipeline.dicom.decode.source")
    )
    assert "Zyxwname" in noisy and quiet == ""


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_another_native_syntax_is_the_same_object(receiver: Receiver, native: Dataset, syntax: Any) -> None:
    assert take(receiver, native) == 0 and take(receiver, _encoded(native, syntax), syntax) == 0
    assert dict(receiver.counts) == {"stored": 1, "same": 1}


def _encoded(ds: Dataset, syntax: Any) -> Dataset:
    """Return the object with pixels in the byte order of the syntax."""
    if syntax == ExplicitVRBigEndian and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    return ds


def test_a_compressed_copy_is_the_same_object(receiver: Receiver, native: Dataset) -> None:
    assert take(receiver, native) == 0
    native.compress(RLELossless, generate_instance_uid=False)
    assert take(receiver, native, RLELossless) == 0
    assert dict(receiver.counts) == {"stored": 1, "same": 1}


@pytest.mark.parametrize("change", ["pixels", "sex", "nested"])
def test_other_contents_stay_a_conflict(receiver: Receiver, native: Dataset, change: str) -> None:
    item = Dataset()
    item.CodeValue = "1"
    native.ViewCodeSequence = [item]
    assert take(receiver, native) == 0
    if change == "pixels":
        native.PixelData = bytes([native.PixelData[0] ^ 1]) + native.PixelData[1:]
    elif change == "sex":
        native.PatientSex = "F" if native.get("PatientSex") != "F" else "M"
    else:
        item.CodeValue = "2"
    assert take(receiver, native, ImplicitVRLittleEndian) == 0
    assert dict(receiver.counts) == {"stored": 1, "quarantined": 1}


def test_a_file_with_an_invalid_uid_gets_a_code(phantoms: list[Path], tmp_path: Path, make_bad: Callable) -> None:
    from pipeline.dicom.decode.read import read_instance
    from pipeline.errors import Rejected, RejectionCode

    with pytest.raises(Rejected) as refused:
        read_instance(make_bad(phantoms[0], tmp_path / "bad.dcm"), DecodeLimits(settle_seconds=0))
    assert refused.value.code is RejectionCode.INVALID_UID and "Zyxwname" not in refused.value.sentence


@pytest.fixture
def make_bad() -> Callable[[Path, Path], Path]:
    """Return a function that copies a file and spoils its Study Instance UID."""

    def make(source: Path, target: Path) -> Path:
        ds = dcmread(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds.StudyInstanceUID = "Zyxwname"
            ds.save_as(target)
        return target

    return make
