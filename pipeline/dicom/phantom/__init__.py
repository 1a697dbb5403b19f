"""Phantom patients: invented people with known anatomy, scanners and lesions, as arrays and as valid DICOM files.

`make_patient` and `make_pair` return arrays; `write_phantoms`, `write_pairs`, `write_labels`, `write_broken` and
`write_demo` write folders.
"""

from __future__ import annotations

from pipeline.dicom.phantom.broken import write_broken
from pipeline.dicom.phantom.demo import DemoFolder, write_demo
from pipeline.dicom.phantom.folder import PhantomFile, PhantomManifest, PhantomStudy, write_labels, write_phantoms
from pipeline.dicom.phantom.pair_folder import write_pairs
from pipeline.dicom.phantom.pairs import PairKind, make_pair
from pipeline.dicom.phantom.patient import PhantomPatient, make_patient
from pipeline.dicom.phantom.phantom_lesions import Lesion, LesionKind
from pipeline.dicom.phantom.scanner import SCANNERS, PhantomModality, Scanner

__all__ = [
    "SCANNERS",
    "DemoFolder",
    "Lesion",
    "LesionKind",
    "PairKind",
    "PhantomFile",
    "PhantomManifest",
    "PhantomModality",
    "PhantomPatient",
    "PhantomStudy",
    "Scanner",
    "make_pair",
    "make_patient",
    "write_broken",
    "write_demo",
    "write_labels",
    "write_pairs",
    "write_phantoms",
]
