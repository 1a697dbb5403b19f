"""Waveform objects: the samples of pydicom's own file and of ours, every fault with its code, and no free text."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.physical import to_physical
from pipeline.dicom.decode.read import read_header, read_instance
from pipeline.dicom.decode.waveform import LEADS, Multiplex, expand_a_law, expand_mu_law
from pipeline.dicom.phantom.ecg_model import make_ecg
from pipeline.dicom.phantom.objects import Visit
from pipeline.dicom.phantom.waveform_objects import make_ecg_object
from pipeline.errors import Rejected, RejectionCode

LIMITS = DecodeLimits()
VISIT = Visit("WAVE-1", "PLANTED^WAVE", date(2024, 3, 1), "W1", "PLANTED HOSPITAL", "wave")


def _ecg() -> Dataset:
    return make_ecg_object(make_ecg(1, seconds=2.0), VISIT)


def _write(ds: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    buffer = BytesIO()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(buffer, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    path.write_bytes(buffer.getvalue())
    return path


def test_pydicoms_own_recording_has_the_same_millivolts() -> None:
    path = Path(str(get_testdata_file("waveform_ecg.dcm")))
    ds, ours = pydicom.dcmread(path), read_instance(path, LIMITS)
    physical = to_physical(ours.stored, ours.attributes)
    groups = [Multiplex.of(one) for one in ours.attributes.waveforms]
    original = [n for n, item in enumerate(ds.WaveformSequence) if item.WaveformOriginality == "ORIGINAL"]
    assert len(groups) == len(original) == len(physical.pixels)
    for frame, (number, group) in enumerate(zip(original, groups, strict=True)):
        theirs = ds.waveform_array(number).T / 1000  # microvolts
        part = physical.pixels[frame, : len(group.channels), : group.samples]
        assert np.allclose(part, theirs, atol=1e-5)
        assert group.names == LEADS
        assert {channel.unit for channel in group.channels} == {"mV"}
        assert group.rate_hz == ds.WaveformSequence[number].SamplingFrequency


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_stored_values_and_truth_come_back(syntax: str, tmp_path: Path) -> None:
    ecg = make_ecg(1, seconds=2.0)
    read = read_instance(_write(_ecg(), tmp_path / "a.dcm", syntax), LIMITS)
    assert np.array_equal(read.stored[0], ecg.stored)
    physical = to_physical(read.stored, read.attributes)
    assert np.allclose(physical.pixels[0], ecg.stored * ecg.recorder.microvolts / 1000, atol=1e-6)
    assert physical.valid is not None
    assert physical.valid.all()
    assert InstanceAttributes.from_json(json.loads(json.dumps(read.attributes.to_json()))) == read.attributes


def test_big_endian_samples_are_swapped(tmp_path: Path) -> None:
    ds = _ecg()
    group = ds.WaveformSequence[0]
    group.WaveformData = np.frombuffer(group.WaveformData, "<i2").astype(">i2").tobytes()
    read = read_instance(_write(ds, tmp_path / "a.dcm", ExplicitVRBigEndian), LIMITS)
    assert np.array_equal(read.stored[0], make_ecg(1, seconds=2.0).stored)


def _changed(**values: Any) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(ds.WaveformSequence[0], keyword)
            else:
                setattr(ds.WaveformSequence[0], keyword, value)

    return change


def _cut(ds: Dataset) -> None:
    ds.WaveformSequence[0].WaveformData = ds.WaveformSequence[0].WaveformData[:-4]


def _longer(ds: Dataset) -> None:
    ds.WaveformSequence[0].WaveformData += bytes(24)


def _no_group(ds: Dataset) -> None:
    ds.WaveformSequence = []


def _fewer_definitions(ds: Dataset) -> None:
    del ds.WaveformSequence[0].ChannelDefinitionSequence[3]


FAULTS: dict[str, tuple[RejectionCode, Callable[[Dataset], None]]] = {
    "no frequency": (RejectionCode.NO_SAMPLING_FREQUENCY, _changed(SamplingFrequency=None)),
    "frequency 0": (RejectionCode.NO_SAMPLING_FREQUENCY, _changed(SamplingFrequency=0)),
    "frequency -5": (RejectionCode.NO_SAMPLING_FREQUENCY, _changed(SamplingFrequency=-5)),
    "cut": (RejectionCode.WAVEFORM_LENGTH, _cut),
    "longer": (RejectionCode.WAVEFORM_LENGTH, _longer),
    "no data": (RejectionCode.WAVEFORM_LENGTH, _changed(WaveformData=None)),
    "more samples than data": (RejectionCode.WAVEFORM_LENGTH, _changed(NumberOfWaveformSamples=10**6)),
    "hostile size": (RejectionCode.TOO_MANY_PIXELS, _changed(NumberOfWaveformSamples=2**31 - 1)),
    "no samples": (RejectionCode.CORRUPT_HEADER, _changed(NumberOfWaveformSamples=0)),
    "no channels": (RejectionCode.MISSING_ATTRIBUTE, _changed(NumberOfWaveformChannels=None)),
    "fewer definitions": (RejectionCode.CORRUPT_HEADER, _fewer_definitions),
    "24 bits": (RejectionCode.UNSUPPORTED_WAVEFORM, _changed(WaveformBitsAllocated=24)),
    "unknown type": (RejectionCode.UNSUPPORTED_WAVEFORM, _changed(WaveformSampleInterpretation="XX")),
    "no group": (RejectionCode.NO_PIXEL_DATA, _no_group),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_recording_is_refused_with_its_code(name: str, tmp_path: Path) -> None:
    code, change = FAULTS[name]
    ds = _ecg()
    change(ds)
    with pytest.raises(Rejected) as caught:
        read_instance(_write(ds, tmp_path / "a.dcm"), LIMITS)
    assert caught.value.code is code
    assert "PLANTED" not in str(caught.value)


def test_laws_agree_with_an_independent_decoder() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop", reason="removed from Python 3.13")
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(expand_mu_law(codes), np.frombuffer(audioop.ulaw2lin(codes.tobytes(), 2), "<i2"))
    assert np.array_equal(expand_a_law(codes), np.frombuffer(audioop.alaw2lin(codes.tobytes(), 2), "<i2"))


def test_laws_at_known_codes() -> None:
    assert expand_mu_law(np.array([0xFF, 0x7F, 0x80, 0x00], np.uint8)).tolist() == [0, 0, 32124, -32124]
    assert expand_a_law(np.array([0xD5, 0x55, 0xAA, 0x2A], np.uint8)).tolist() == [8, -8, 32256, -32256]


@pytest.mark.parametrize(
    ("coding", "bits", "dtype"), [("SB", 8, "i1"), ("UB", 8, "u1"), ("US", 16, "<u2"), ("MB", 8, "i2")]
)
def test_every_sample_type_is_read(coding: str, bits: int, dtype: str, tmp_path: Path) -> None:
    ds, raw = _ecg(), np.arange(24, dtype="u1" if bits == 8 else dtype)
    group = ds.WaveformSequence[0]
    group.NumberOfWaveformSamples, group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 2, bits, coding
    group.WaveformData = raw.tobytes()
    read = read_instance(_write(ds, tmp_path / "a.dcm"), LIMITS)
    values = raw.reshape(2, 12).T
    expected = expand_mu_law(values) if coding == "MB" else values
    assert np.array_equal(read.stored[0], expected)
    assert read.stored.dtype.name == np.dtype(dtype).name
    assert read.attributes.lossy == (coding == "MB")


def test_groups_are_frames_and_computed_ones_are_left_out(tmp_path: Path) -> None:
    short, derived = (make_ecg_object(make_ecg(2, seconds=1.0), VISIT).WaveformSequence[0] for _ in range(2))
    ds, derived.WaveformOriginality = _ecg(), "DERIVED"
    ds.WaveformSequence = [ds.WaveformSequence[0], short, derived]
    path = _write(ds, tmp_path / "a.dcm")
    read = read_instance(path, LIMITS)
    own = [Multiplex.of(one).samples for one in read.attributes.waveforms]
    assert read.stored.shape == (2, 12, max(own))
    assert read.attributes.assumed == ("ignored:1 derived groups",)
    physical = to_physical(read.stored, read.attributes)
    assert physical.valid.sum(axis=2)[:, 0].tolist() == own
    assert read_header(path, LIMITS)[1] == read.attributes
    single = to_physical(read.stored[1:], read.attributes.of_frame(1))
    assert np.array_equal(single.pixels[0], physical.pixels[1])


def test_padding_is_not_signal(tmp_path: Path) -> None:
    ds = _ecg()
    ds.WaveformSequence[0].add_new("WaveformPaddingValue", "OW", np.array([-32768], "<i2").tobytes())
    data = np.frombuffer(ds.WaveformSequence[0].WaveformData, "<i2").copy()
    data[: 12 * 5] = -32768
    ds.WaveformSequence[0].WaveformData = data.tobytes()
    read = read_instance(_write(ds, tmp_path / "a.dcm"), LIMITS)
    valid = to_physical(read.stored, read.attributes).valid
    assert (~valid).sum() == 60
    assert not valid[0, :, :5].any()


def test_free_text_stays_in_the_file(tmp_path: Path) -> None:
    ds = _ecg()
    channel = ds.WaveformSequence[0].ChannelDefinitionSequence[0]
    channel.ChannelLabel, channel.ChannelSourceSequence[0].CodeValue = "PLANTED", "9:99"
    ds.WaveformSequence[0].MultiplexGroupLabel = "PLANTED"
    read = read_instance(_write(ds, tmp_path / "a.dcm"), LIMITS)
    assert "PLANTED" not in json.dumps([read.attributes.to_json(), [step.to_json() for step in read.history]]).upper()
    assert Multiplex.of(read.attributes.waveforms[0]).names == ("", *LEADS[1:])


def test_a_label_may_name_a_lead(tmp_path: Path) -> None:
    ds = _ecg()
    for channel in ds.WaveformSequence[0].ChannelDefinitionSequence:
        del channel.ChannelSourceSequence
    read = read_instance(_write(ds, tmp_path / "a.dcm"), LIMITS)
    assert Multiplex.of(read.attributes.waveforms[0]).names == LEADS


def test_without_a_unit_values_are_shares_of_full_scale(tmp_path: Path) -> None:
    ds = _ecg()
    for channel in ds.WaveformSequence[0].ChannelDefinitionSequence:
        del channel.ChannelSensitivityUnitsSequence
    read = read_instance(_write(ds, tmp_path / "a.dcm"), LIMITS)
    physical = to_physical(read.stored, read.attributes)
    assert np.allclose(physical.pixels, read.stored / 2**15)
    assert {one.unit for one in Multiplex.of(read.attributes.waveforms[0]).channels} == {""}
