"""Phantom patients: made-up people with known anatomy, scanners and lesions, as arrays and as valid DICOM files."""

from __future__ import annotations

from pipeline.dicom.phantom.lesions import Lesion, LesionKind
from pipeline.dicom.phantom.patient import PhantomPatient, make_patient
from pipeline.dicom.phantom.scanner import SCANNERS, PhantomModality, Scanner

__all__ = ["SCANNERS", "Lesion", "LesionKind", "PhantomModality", "PhantomPatient", "Scanner", "make_patient"]
