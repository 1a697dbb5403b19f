"""Finding as a picture: Secondary Capture (PS3.3 A.8.1), which every workstation can display."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pipeline.dicom.decode.own_objects import MANUFACTURER
from pipeline.dicom.decode.own_pictures import stamp
from pipeline.dicom.export.described import (
    MODEL_NAME,
    NOT_FOR_DIAGNOSIS,
    Described,
    SourceImage,
    finish,
    series_of,
)


def secondary_capture(finding: Described, picture: np.ndarray, image: SourceImage) -> Dataset:
    """Return a picture, uint8 [H, W, 3], as an object of the study of `image`.

    The pixels contain no patient name, and a stamp by which the picture is recognised (`own_pictures`).
    """
    ds = hd.sc.SCImage.from_ref_dataset(
        image.dataset,
        pixel_array=np.ascontiguousarray(stamp(picture)),
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=(
            "L",
            "P",
        ),  # highdicom requires one; emptied below, because the picture shows several images
        manufacturer=MANUFACTURER,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **series_of(finding, "sc"),
    )
    ds.ManufacturerModelName, ds.SoftwareVersions = MODEL_NAME, finding.software
    ds.PatientOrientation = ""
    ds.BurnedInAnnotation, ds.ImageType = "NO", ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = NOT_FOR_DIAGNOSIS
    return finish(ds, finding, "sc", image.dataset)
