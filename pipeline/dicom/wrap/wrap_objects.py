"""Build Secondary Capture objects (PS3.3 A.8) with ConversionType WSD (workstation).

They have a position in the patient only where the source has one: a NIfTI volume, from its affine.

Whole numbers are stored exactly (unsigned, with a rescale intercept where they are negative, and in 8 bits where they
fit). Other numbers are mapped linearly to 16 bits; the error of a value is at most half the rescale slope, that is
`(max - min) / 131070` (plus 1e-8 of the largest value where the range is narrower than that), and DerivationDescription
records it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from pipeline.dicom.identity.uids import derived_uid
from pipeline.dicom.wrap.wrap_geometry import add_geometry
from pipeline.dicom.wrap.wrap_manifest import ManifestRow
from pipeline.dicom.wrap.wrap_pictures import Picture

# Unpaired body parts (PS3.16 annex L): their Laterality must be absent. For all others it is unknown, that is empty.
UNPAIRED = {
    "ABDOMEN", "ABDOMENPELVIS", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "COLON", "CSPINE",
    "ESOPHAGUS", "HEAD", "HEADNECK", "HEART", "JAW", "LIVER", "LSPINE", "MEDIASTINUM", "NECK", "NECKCHEST",
    "PANCREAS", "PELVIS", "PROSTATE", "SKULL", "SPINE", "SPLEEN", "SSPINE", "STOMACH", "THYROID", "TSPINE", "UTERUS",
    "WHOLEBODY",
}  # fmt: skip
_TINY = 1e-280  # smaller magnitudes count as zero
PAGE_NUMBER_VECTOR = 0x00182001


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored values uint8 or uint16 [F, H, W], whose source values are stored * slope + intercept."""

    values: np.ndarray
    slope: float = 1.0
    intercept: float = 0.0
    exact: bool = True


def to_stored(frames: np.ndarray) -> Stored:
    """Choose how to store an array of numbers [F, H, W]; the module docstring gives the error bound."""
    if frames.dtype.kind == "b":
        return Stored(frames.astype(np.uint8))
    low, high = frames.min(), frames.max()
    if frames.dtype.kind in "iu" and int(high) - min(int(low), 0) <= 65535:
        shift = min(int(low), 0)
        wide = frames.dtype != np.uint8
        values = (frames.astype(np.int64) - shift).astype(np.uint16 if wide else np.uint8)
        return Stored(values, intercept=float(shift))
    return _mapped(frames.astype(np.float64), float(low), float(high))


def _mapped(values: np.ndarray, low: float, high: float) -> Stored:
    # Decimal strings hold 16 characters: round slope and intercept first, then map with what readers will see.
    intercept = _decimal(low - abs(low) * 1e-9, math.floor)
    slope = max(_decimal((high - intercept) / 65535, math.ceil), _TINY) if high > intercept else 1.0
    stored = np.clip(np.rint((values - intercept) / slope), 0, 65535).astype(np.uint16)
    return Stored(stored, slope, intercept, exact=False)


def _decimal(value: float, towards: Callable[[float], int]) -> float:
    """Round to 9 digits, away from the data: the text fits 16 characters and the range stays covered."""
    if abs(value) < _TINY:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 8)
    return float(f"{towards(value / unit) * unit:.8e}")


def content_hash(stored: Stored) -> str:
    """SHA-256 over type, shape, rescale and values: equal for pixel-identical images."""
    values = np.ascontiguousarray(stored.values)
    head = f"{values.dtype.str}{values.shape}{stored.slope}{stored.intercept}"
    return hashlib.sha256(head.encode() + values.tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Place:
    """Identifiers of a wrapped image: patient, study, series and instance. `repr` shows nothing."""

    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str
    instance_number: int

    def __repr__(self) -> str:
        return "Place()"


def place(row: ManifestRow, dataset: str, content: str) -> Place:
    """Return the identifiers of a row, derived from the data set's name, the row's own ids and file, and the content.

    Without a patient_id the PatientID is derived from the file's address and content, so each image has its own.
    """
    patient = row.patient_id or f"IMG-{hashlib.sha256(f'{dataset}|{row.file}|{content}'.encode()).hexdigest()[:20]}"
    alone = row.slice_index is None or not row.patient_id
    visit = row.study_id or (row.file if alone else "")
    study = derived_uid("wrap", dataset, patient, "study", visit, bool(row.study_id))
    series = derived_uid("wrap", dataset, patient, study, "series", row.file if row.slice_index is None else "")
    instance = derived_uid("wrap", dataset, series, row.slice_index, row.file, content)
    return Place(patient, study, series, instance, 1 if row.slice_index is None else row.slice_index)


def make_secondary_capture(row: ManifestRow, picture: Picture, stored: Stored, where: Place) -> bytes:
    """Return the DICOM file: single-frame Secondary Capture, or Multi-frame Grayscale Byte or Word for a volume."""
    ds = Dataset()
    _identify(ds, row, where)
    _pixels(ds, picture, stored)
    if picture.volume:
        _multi_frame(ds, len(stored.values))
        if picture.geometry is not None:
            add_geometry(ds, picture.geometry, len(stored.values))
    return to_file(ds)


def to_file(ds: Dataset) -> bytes:
    """Return a data set as a DICOM file (PS3.10), Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = derived_uid("implementation", "wrap"), "NIGHTREAD"  # type: ignore[assignment]  # pydicom makes a UID of it
    ds.file_meta = meta
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _identify(ds: Dataset, row: ManifestRow, where: Place) -> None:
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPInstanceUID = where.sop_uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = where.study_uid, where.series_uid
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = where.patient_id, "", "", row.sex
    if row.age is not None:
        ds.PatientAge = f"{row.age:03d}Y"
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ds.StudyID = ""
    ds.Modality, ds.ConversionType = row.modality, "WSD"
    ds.SeriesNumber, ds.InstanceNumber = 1, where.instance_number
    ds.Manufacturer = ds.PatientOrientation = ""
    if row.body_part:
        ds.BodyPartExamined = row.body_part
    if row.body_part not in UNPAIRED:
        ds.Laterality = ""


def _pixels(ds: Dataset, picture: Picture, stored: Stored) -> None:
    bits = 8 * stored.values.dtype.itemsize
    ds.SOPClassUID = _sop_class(picture.volume, bits)
    ds.ImageType = ["DERIVED", "SECONDARY"]
    notes = [*picture.notes, *([] if stored.exact else [f"mapped to 16 bits, error at most {stored.slope / 2:.3e}"])]
    if notes:
        ds.DerivationDescription = "Wrapped: " + "; ".join(notes)
    if picture.lossy_ratio is not None:
        ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", picture.lossy_ratio
        ds.LossyImageCompressionMethod = "ISO_10918_1"
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows, ds.Columns = stored.values.shape[1:]
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    if picture.volume or stored.slope != 1 or stored.intercept != 0:
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _text(stored.intercept), _text(stored.slope), "US"
    data = np.ascontiguousarray(stored.values, stored.values.dtype.newbyteorder("<")).tobytes()
    ds.add_new("PixelData", "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))


def _sop_class(volume: bool, bits: int) -> str:
    if not volume:
        return SecondaryCaptureImageStorage
    if bits == 8:
        return MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    return MultiFrameGrayscaleWordSecondaryCaptureImageStorage


def _multi_frame(ds: Dataset, frames: int) -> None:
    """Add the multi-frame modules (PS3.3 C.7.6.6, C.8.6.3, C.8.6.4), with frames as pages for want of other data."""
    ds.NumberOfFrames, ds.FrameIncrementPointer = frames, PAGE_NUMBER_VECTOR
    ds.PageNumberVector = list(range(1, frames + 1))
    ds.BurnedInAnnotation, ds.PresentationLUTShape = "NO", "IDENTITY"


def _text(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.8e}"
