"""Synthetic images as DICOM: Secondary Capture objects (PS3.3 A.8.1) that say in four places that nobody was scanned.

Synthetic Data (0008,001C) is YES, Image Type is DERIVED\\SECONDARY, the Contributing Equipment Sequence names Nightread
and the model, and the patient is empty. `pipeline.dicom.decode.own_objects` refuses such an object on its way in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pipeline.dicom.decode.own_objects import MANUFACTURER
from pipeline.dicom.decode.own_uids import own_uid
from pipeline.dicom.wrap.wrap_objects import UNPAIRED, to_file

BITS = 12
SENTENCE = "Synthetic image, drawn by a generative model. It shows no patient. Not for diagnosis."


@dataclass(frozen=True, slots=True)
class SyntheticOrigin:
    """What made a set of synthetic images.

    Attributes:
        task_id: of the task, from which the UIDs are derived.
        method, model_sha256: of the model.
        software: our version.
        at: DICOM date and time (DT) of the task.
    """

    task_id: str
    method: str
    model_sha256: str
    software: str
    at: str


def make_synthetic(image: np.ndarray, number: int, origin: SyntheticOrigin, about: Mapping[str, Any]) -> bytes:
    """Return one synthetic image as a DICOM file; the same arguments give the same bytes.

    Args:
        image: float [H, W] about [-1, 1], which become the stored values 0 and 4095; values beyond are cut off.
        number: of the image within its task, from 0.
        origin: what made it.
        about: its conditions; modality and body part enter the header, the modality OT where it is unknown.
    """
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.StudyInstanceUID = own_uid("synthetic", origin.task_id)
    ds.SeriesInstanceUID = own_uid("synthetic", origin.task_id, "series")
    ds.SOPInstanceUID = own_uid("synthetic", origin.task_id, number)
    ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ds.StudyID = ""
    ds.SeriesNumber, ds.InstanceNumber = 1, number + 1
    ds.Modality, ds.ConversionType = str(about.get("modality", "OT")), "SYN"
    ds.SeriesDescription = "Synthetic, not for diagnosis"
    _describe(ds, origin)
    _place(ds, about)
    _pixels(ds, image)
    return to_file(ds)


def _describe(ds: Dataset, origin: SyntheticOrigin) -> None:
    ds.SyntheticData = "YES"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.Manufacturer, ds.ManufacturerModelName = MANUFACTURER, origin.method
    ds.SoftwareVersions = origin.software
    ds.DerivationDescription = f"{SENTENCE} Method {origin.method}, model SHA-256 {origin.model_sha256}."
    made_by = Dataset()
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109102", "DCM", "Processing Equipment"
    made_by.PurposeOfReferenceCodeSequence = [purpose]
    made_by.Manufacturer, made_by.ManufacturerModelName = MANUFACTURER, origin.method
    made_by.SoftwareVersions, made_by.ContributionDateTime = origin.software, origin.at
    made_by.ContributionDescription = f"{SENTENCE} {origin.method}"
    ds.ContributingEquipmentSequence = [made_by]


def _place(ds: Dataset, about: Mapping[str, Any]) -> None:
    ds.PatientOrientation = ""
    if "body_part" in about:
        ds.BodyPartExamined = str(about["body_part"])
    if about.get("body_part") not in UNPAIRED:
        ds.Laterality = ""


def _pixels(ds: Dataset, image: np.ndarray) -> None:
    stored = np.rint((np.clip(image, -1, 1) + 1) / 2 * (2**BITS - 1)).astype("<u2")
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, BITS, BITS - 1
    ds.WindowCenter, ds.WindowWidth = 2 ** (BITS - 1), 2**BITS
    ds.BurnedInAnnotation = "NO"
    ds.add_new("PixelData", "OW", stored.tobytes())
