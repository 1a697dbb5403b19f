"""Invented signals as DICOM Waveform objects: 12-Lead ECG and General Audio (PS3.3 A.34.3, A.34.10, C.10.9)."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset
from pydicom.uid import GeneralAudioWaveformStorage, TwelveLeadECGWaveformStorage

from pipeline.dicom.decode.waveform import LEADS
from pipeline.dicom.phantom.ecg_model import PhantomEcg
from pipeline.dicom.phantom.formant_speech import RATE_HZ, Utterance
from pipeline.dicom.phantom.objects import Visit, make_code, make_file_meta
from pipeline.dicom.phantom.scanner import MANUFACTURER

# PS3.16 CID 3001: codes of ISO/IEEE 11073-10102 (scheme MDC)
LEAD_CODES = dict(
    zip(LEADS, ("2:1", "2:2", "2:61", "2:62", "2:63", "2:64", "2:3", "2:4", "2:5", "2:6", "2:7", "2:8"), strict=True)
)
_TITLE = {"ECG": "12 LEAD ECG", "AU": "SPEECH"}


def make_ecg_object(ecg: PhantomEcg, visit: Visit, instance: int = 0) -> Dataset:
    """Return a recording as a 12-Lead ECG Waveform object, 16 bits, in one multiplex group."""
    ds = _identify("ECG", TwelveLeadECGWaveformStorage, visit, instance)
    ds.PatientSex, ds.PatientAge = ecg.sex, f"{ecg.age:03d}Y"
    ds.ManufacturerModelName = ecg.recorder.model
    group = _group(ecg.stored, ecg.recorder.rate_hz, "RHYTHM")
    group.ChannelDefinitionSequence = [_lead(name, ecg.recorder.microvolts) for name in LEADS]
    ds.WaveformSequence = [group]
    return ds


def make_audio_object(utterance: Utterance, visit: Visit, instance: int = 0) -> Dataset:
    """Return an utterance as a General Audio Waveform object, 16 bits, one channel at 16 kHz, without a unit."""
    ds = _identify("AU", GeneralAudioWaveformStorage, visit, instance)
    ds.PatientSex, ds.ManufacturerModelName = "", "Vox P"
    stored = np.rint(utterance.sound * 32767).astype(np.int16)[None]
    group = _group(stored, RATE_HZ, "")
    channel = _channel("Mono")
    channel.ChannelSourceSequence = [make_code("110231", "DCM", "Voice")]
    group.ChannelDefinitionSequence = [channel]
    ds.WaveformSequence = [group]
    return ds


def _identify(modality: str, sop_class: str, visit: Visit, instance: int) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, visit.uid("instance", instance)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = visit.uid("study"), visit.uid("series")
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = visit.patient_name, visit.patient_id, ""
    day = visit.study_date.strftime("%Y%m%d")
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = day
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "213000"
    ds.AcquisitionDateTime = f"{day}213000"
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = visit.accession_number, "1", visit.patient_name
    ds.InstitutionName, ds.Manufacturer = visit.institution, MANUFACTURER
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = modality, 1, instance + 1
    ds.SeriesDescription = _TITLE[modality]
    ds.AcquisitionContextSequence = []
    if modality == "ECG":
        ds.WaveformAnnotationSequence = [_annotation(visit)]
    ds.file_meta = make_file_meta(ds)
    return ds


def _annotation(visit: Visit) -> Dataset:
    """Return a remark as a technician types it, with a name in it, which must never travel on (PS3.3 C.10.10)."""
    item = Dataset()
    item.UnformattedTextValue = f"Recorded by {visit.patient_name} on {visit.study_date}"
    item.ReferencedWaveformChannels = [1, 0]
    return item


def _group(stored: np.ndarray, rate_hz: float, label: str) -> Dataset:
    """Return a multiplex group around stored values [channels, samples], which are written sample by sample."""
    item = Dataset()
    item.WaveformOriginality = "ORIGINAL"
    item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = stored.shape
    item.SamplingFrequency = rate_hz
    if label:
        item.MultiplexGroupLabel = label
    item.WaveformBitsAllocated, item.WaveformSampleInterpretation = 16, "SS"
    item.add_new("WaveformData", "OW", np.ascontiguousarray(stored.T, "<i2").tobytes())
    return item


def _lead(name: str, microvolts: float) -> Dataset:
    channel = _channel(f"Lead {name}")
    channel.ChannelSourceSequence = [make_code(LEAD_CODES[name], "MDC", f"Lead {name}")]
    channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = microvolts, 1
    channel.ChannelSensitivityUnitsSequence = [make_code("uV", "UCUM", "microvolt")]
    channel.ChannelBaseline = 0
    return channel


def _channel(label: str) -> Dataset:
    channel = Dataset()
    channel.ChannelLabel, channel.ChannelSampleSkew, channel.WaveformBitsStored = label, 0, 16
    return channel
