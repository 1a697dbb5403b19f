"""Phantom scan, or signal, as the bytes of DICOM files: the input example of a registered model."""

from __future__ import annotations

from datetime import date

from pydicom.uid import ExplicitVRLittleEndian

from pipeline.dicom.phantom.ecg_model import make_ecg
from pipeline.dicom.phantom.formant_speech import make_speaker, speak
from pipeline.dicom.phantom.objects import Visit, datasets, encode
from pipeline.dicom.phantom.patient import make_patient
from pipeline.dicom.phantom.scanner import PhantomModality
from pipeline.dicom.phantom.waveform_objects import make_audio_object, make_ecg_object

EXAMPLE = Visit("EXAMPLE", "EXAMPLE^PHANTOM", date(2024, 1, 1), "EXAMPLE", "EXAMPLE", "example")


def example_file(modality: PhantomModality, size: int = 64) -> bytes:
    """Return a normal phantom of one slice; equal arguments give equal bytes."""
    return example_series(modality, 1, size)[0]


def example_series(modality: PhantomModality, slices: int, size: int = 64) -> list[bytes]:
    """Return the files of a normal phantom with this number of slices."""
    patient = make_patient(1, modality, None, size, slices)
    return [encode(ds, ExplicitVRLittleEndian) for ds in datasets(patient, EXAMPLE)]


def example_signal(spoken: bool) -> bytes:
    """Return the file of a normal ECG, or of an utterance."""
    words = ("m", "a", "s", "i", "n", "o", "f", "u")
    ds = (
        make_audio_object(speak(make_speaker(1), words, 1), EXAMPLE)
        if spoken
        else make_ecg_object(make_ecg(1), EXAMPLE)
    )
    return encode(ds, ExplicitVRLittleEndian)
