"""One phantom slice as the bytes of a DICOM file: the input example of a registered model."""

from __future__ import annotations

from datetime import date

from pydicom.uid import ExplicitVRLittleEndian

from pipeline.dicom.phantom.objects import Visit, datasets, encoded
from pipeline.dicom.phantom.patient import make_patient
from pipeline.dicom.phantom.scanner import PhantomModality

EXAMPLE = Visit("EXAMPLE", "EXAMPLE^PHANTOM", date(2024, 1, 1), "EXAMPLE", "EXAMPLE", "example")


def example_file(modality: PhantomModality, size: int = 64) -> bytes:
    """Return a normal phantom of one slice, the same for the same arguments."""
    patient = make_patient(1, modality, None, size, 1)
    return encoded(next(datasets(patient, EXAMPLE)), ExplicitVRLittleEndian)
