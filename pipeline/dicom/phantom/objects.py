"""Phantom patients as DICOM data sets: CT, MR, CR, DX and US image objects (PS3.3 A.3, A.4, A.2, A.26, A.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    UltrasoundImageStorage,
)

from pipeline.dicom.identity.uids import derived_uid
from pipeline.dicom.phantom.patient import AXIS_MM, PhantomPatient
from pipeline.dicom.phantom.scanner import MANUFACTURER, PADDING

SOP_CLASS = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "US": UltrasoundImageStorage,
}
# every transfer syntax that the decoders' packages can write without loss
SYNTAXES = (
    ExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    DeflatedExplicitVRLittleEndian,
)
BODY_PART = {"head": "HEAD", "abdomen": "ABDOMEN", "chest": "CHEST", "breast": "BREAST"}
DESCRIPTION = {
    ("CT", "abdomen"): "AX ABDOMEN VENOUS",
    ("CT", "head"): "AX HEAD",
    ("MR", "head"): "AX FLAIR",
    ("CR", "chest"): "CHEST PA",
    ("DX", "chest"): "CHEST PA",
    ("US", "breast"): "BREAST",
}
# centre and width in HU; other modalities derive theirs from the pixels
WINDOW = {"abdomen": (40, 400), "head": (35, 80)}
FIRST_DAY = date(2024, 1, 1)


@dataclass(frozen=True, slots=True)
class Visit:
    """Identifying part of a study (person, date, place), entirely invented. `repr` shows nothing."""

    patient_id: str
    patient_name: str
    study_date: date
    accession_number: str
    institution: str
    entropy: str

    @classmethod
    def plan(cls, family: str, code: str, index: int, *, woman: bool, number: str, content: str) -> Visit:
        """Return the visit number `index` of an invented hospital.

        Args:
            family: beginning of every name and id.
            code: of the patient, among those of the family.
            index: of the visit, from which name and day follow.
            woman: which of two first names.
            number: end of the accession number.
            content: what distinguishes the files of this visit from others of the same patient.
        """
        return cls(
            patient_id=f"{family}-{code}",
            patient_name=f"{family}^{'ANN' if woman else 'BEN'}{index:04d}",
            study_date=FIRST_DAY + timedelta(days=index * 7 % 366),
            accession_number=f"{family[:4]}{number}",
            institution=f"{family} HOSPITAL",
            entropy=f"{family}/{code}/{content}",
        )

    def __repr__(self) -> str:
        return "Visit()"

    def uid(self, *parts: object) -> str:
        """Return a UID that depends only on this visit and `parts`."""
        return derived_uid("phantom", self.entropy, *parts)


def datasets(patient: PhantomPatient, visit: Visit) -> Iterator[Dataset]:
    """Yield one uncompressed data set per slice, Explicit VR Little Endian, along the patient's axis."""
    for index in range(len(patient.positions)):
        ds = Dataset()
        _identify(ds, patient, visit, index)
        _equipment(ds, patient)
        _pixels(ds, patient, index)
        {"CT": _ct, "MR": _mr, "CR": _cr, "DX": _dx, "US": _us}[patient.modality](ds, patient)
        if patient.modality in ("CT", "MR"):
            _plane(ds, patient, visit, index)
        ds.file_meta = make_file_meta(ds)
        yield ds


def _identify(ds: Dataset, patient: PhantomPatient, visit: Visit, index: int) -> None:
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = SOP_CLASS[patient.modality], visit.uid("instance", index)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = visit.uid("study"), visit.uid("series")
    ds.PatientName, ds.PatientID, ds.PatientSex = visit.patient_name, visit.patient_id, patient.sex
    born = visit.study_date - timedelta(days=round((patient.age + 0.4) * 365.25))
    ds.PatientBirthDate, ds.PatientAge = born.strftime("%Y%m%d"), f"{patient.age:03d}Y"
    day = visit.study_date.strftime("%Y%m%d")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "213000"
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = visit.accession_number, "1", visit.patient_name
    ds.InstitutionName = visit.institution
    ds.Modality, ds.SeriesNumber, ds.AcquisitionNumber = patient.modality, 1, 1
    ds.InstanceNumber = index + 1
    ds.SeriesDescription = DESCRIPTION[patient.modality, patient.region]
    ds.StudyDescription = f"{patient.modality} {BODY_PART[patient.region]}"


def _equipment(ds: Dataset, patient: PhantomPatient) -> None:
    ds.Manufacturer, ds.ManufacturerModelName = MANUFACTURER, patient.scanner.model
    ds.BodyPartExamined = BODY_PART[patient.region]
    ds.BurnedInAnnotation = "NO"


def _pixels(ds: Dataset, patient: PhantomPatient, index: int) -> None:
    frame, scanner = patient.stored[index] if patient.rgb is None else patient.rgb[index], patient.scanner
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, scanner.photometric
    if patient.rgb is not None:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = frame.shape[:2]
    ds.BitsAllocated = 8 * frame.dtype.itemsize
    ds.BitsStored, ds.HighBit = scanner.bits_stored, scanner.bits_stored - 1
    ds.PixelRepresentation = int(scanner.signed)
    if scanner.padded:
        ds.add_new("PixelPaddingValue", "SS", PADDING)
    stored = np.ascontiguousarray(frame, frame.dtype.newbyteorder("<")).tobytes()
    ds.add_new("PixelData", "OW" if frame.dtype.itemsize == 2 else "OB", stored)


def _plane(ds: Dataset, patient: PhantomPatient, visit: Visit, index: int) -> None:
    spacing = round(patient.pixel_spacing_mm, 6)
    corner = -spacing * (patient.stored.shape[-1] - 1) / 2
    height = patient.positions[index] * AXIS_MM[patient.region]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = visit.uid("frame"), ""
    ds.PatientPosition, ds.PixelSpacing = "HFS", [spacing, spacing]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [round(corner, 4), round(corner, 4), round(height, 4)]
    ds.SliceLocation, ds.SliceThickness = round(height, 4), patient.slice_spacing_mm


def _ct(ds: Dataset, patient: PhantomPatient) -> None:
    scanner = patient.scanner
    ds.ImageType, ds.KVP, ds.GantryDetectorTilt = ["ORIGINAL", "PRIMARY", "AXIAL"], 120, 0
    ds.ConvolutionKernel = scanner.kernel
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = scanner.intercept, scanner.slope, "HU"
    ds.WindowCenter, ds.WindowWidth = WINDOW[patient.region]


def _mr(ds: Dataset, patient: PhantomPatient) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = ["SE", "IR"], "SK", "", "2D"
    ds.RepetitionTime, ds.EchoTime, ds.InversionTime, ds.EchoTrainLength = 9000, 120, 2500, 20
    ds.MagneticFieldStrength = {"1.5T": 1.5, "3T": 3, "1T": 1}[patient.scanner.model.split()[-1]]
    high = float(np.percentile(patient.stored, 99.5))
    ds.WindowCenter, ds.WindowWidth = round(high / 2), max(round(high), 1)


def _cr(ds: Dataset, patient: PhantomPatient) -> None:
    ds.ImageType, ds.KVP = ["ORIGINAL", "PRIMARY"], 110
    ds.ViewPosition, ds.PatientOrientation, ds.PlateType = "PA", ["L", "F"], ""
    _detector(ds, patient)
    _projection_window(ds, patient)


def _dx(ds: Dataset, patient: PhantomPatient) -> None:
    ds.ImageType, ds.KVP = ["ORIGINAL", "PRIMARY", ""], 120
    ds.PresentationIntentType, ds.ImageLaterality = "FOR PRESENTATION", "U"
    ds.ViewPosition, ds.PatientOrientation, ds.DetectorType = "PA", ["L", "F"], "DIRECT"
    ds.PositionerType = "NONE"
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = -1 if patient.scanner.photometric == "MONOCHROME1" else 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "INVERSE" if patient.scanner.photometric == "MONOCHROME1" else "IDENTITY"
    ds.LossyImageCompression, ds.AcquisitionContextSequence = "00", Sequence()
    ds.AnatomicRegionSequence = [make_code("51185008", "SCT", "Chest")]
    ds.ViewCodeSequence = [make_code("399348003", "SCT", "postero-anterior")]
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence()
    _detector(ds, patient)
    _projection_window(ds, patient)


def _detector(ds: Dataset, patient: PhantomPatient) -> None:
    spacing = round(patient.pixel_spacing_mm, 6)
    ds.ImagerPixelSpacing = [spacing, spacing]


def _projection_window(ds: Dataset, patient: PhantomPatient) -> None:
    low, high = (float(value) for value in np.percentile(patient.stored[patient.body], (0.5, 99.5)))
    ds.WindowCenter, ds.WindowWidth = round((low + high) / 2), max(round(high - low), 1)


def _us(ds: Dataset, patient: PhantomPatient) -> None:
    """Ultrasound Image and US Region Calibration modules (PS3.3 C.8.5.6, C.8.5.5)."""
    ds.ImageType, ds.LossyImageCompression = ["ORIGINAL", "PRIMARY", "SMALL PARTS", "0001"], "00"
    ds.PatientOrientation, ds.Laterality = "", "R"
    ds.UltrasoundColorDataPresent = 0
    if not patient.scanner.calibrated:
        return
    (rows,), (columns,) = (np.nonzero(patient.body[0].any(axis=axis)) for axis in (1, 0))
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = 1, 1, 0  # 2D, tissue
    item.RegionLocationMinX0, item.RegionLocationMinY0 = int(columns[0]), int(rows[0])
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = int(columns[-1]), int(rows[-1])
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3  # cm
    item.PhysicalDeltaX = item.PhysicalDeltaY = patient.pixel_spacing_mm / 10
    ds.SequenceOfUltrasoundRegions = [item]


def make_code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def make_file_meta(ds: Dataset) -> FileMetaDataset:
    """Return the file meta group of a phantom object, Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = derived_uid("implementation", "phantom")  # type: ignore[assignment]  # pydicom makes a UID of it
    meta.ImplementationVersionName = "NIGHTREAD"
    return meta


def encode(ds: Dataset, syntax: str) -> bytes:
    """Return the file's bytes (PS3.10) in one of `SYNTAXES`; compresses the pixels of `ds` if needed."""
    if UID(syntax).is_encapsulated:
        ds.compress(UID(syntax), generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
