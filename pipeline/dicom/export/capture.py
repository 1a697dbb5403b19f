"""The finding as a picture: Secondary Capture (PS3.3 A.8.1), readable on every workstation."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pipeline.dicom.export.described import (
    MANUFACTURER,
    MODEL_NAME,
    NOT_FOR_DIAGNOSIS,
    Described,
    SourceImage,
    finish,
    series_of,
)


def secondary_capture(found: Described, picture: np.ndarray, image: SourceImage) -> Dataset:
    """Return a picture, uint8 [H, W, 3], as an object of the study of `image`; it names no patient in its pixels."""
    ds = hd.sc.SCImage.from_ref_dataset(
        image.dataset,
        pixel_array=np.ascontiguousarray(picture, dtype=np.uint8),
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),  # asked for; taken back below, since a panel shows several images at once
        manufacturer=MANUFACTURER,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **series_of(found, "sc"),
    )
    ds.ManufacturerModelName, ds.SoftwareVersions = MODEL_NAME, found.software
    ds.PatientOrientation = ""
    ds.BurnedInAnnotation, ds.ImageType = "NO", ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = NOT_FOR_DIAGNOSIS
    return finish(ds, found, "sc", image.dataset)
