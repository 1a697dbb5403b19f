"""Decode DICOM Waveform objects (PS3.3 C.10.9): ECG, audio and other signals as frames [channels, samples].

A multiplex group is to a waveform object what a frame is to an image: one instance may hold several. Groups are padded
with zeros to the widest one, so that an instance is one array like any other; `Multiplex` says how much of a frame is
signal, and what it means. Annotations, channel labels and group labels are free text, so none of them is read, except
that a label may name a lead of an ECG.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian

from pipeline.dicom.decode.fields import (
    malformed,
    read_code,
    read_first_item,
    read_items,
    read_number,
    read_optional_text,
    read_value,
    require_integer,
)
from pipeline.dicom.decode.vendors import Assumed
from pipeline.errors import Rejected, RejectionCode
from pipeline.types import Step

if TYPE_CHECKING:
    from pipeline.config import DecodeLimits

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
# Numbers of the leads in the codes of ISO/IEEE 11073-10102 ("2:1", MDC) and of SCP-ECG ("5.6.3-9-1", SCPECG).
_NUMBERS = dict(zip(("1", "2", "61", "62", "63", "64", "3", "4", "5", "6", "7", "8"), LEADS, strict=True))
_CODES = {
    **{("MDC", f"2:{number}"): name for number, name in _NUMBERS.items()},
    **{("SCPECG", f"5.6.3-9-{number}"): name for number, name in _NUMBERS.items()},
    **{("MDC", f"MDC_ECG_LEAD_{name.upper()}"): name for name in LEADS},
}
_NAMES = {name.upper(): name for name in LEADS}
_LABEL = re.compile(r"(?:LEAD )?(I{1,3}|AV[RLF]|V[1-6])")
# UCUM code of a unit: the unit that we keep, and the factor to it. A unit that is not listed has no name here.
_UNITS = {
    "uV": ("mV", 1e-3), "mV": ("mV", 1.0), "V": ("mV", 1e3), "nV": ("mV", 1e-6), "mm[Hg]": ("mmHg", 1.0),
    "Pa": ("Pa", 1.0), "kPa": ("Pa", 1e3), "Ohm": ("Ohm", 1.0), "%": ("%", 1.0), "L/min": ("L/min", 1.0),
}  # fmt: skip
_PLAIN = {("SB", 8): "i1", ("UB", 8): "u1", ("SS", 16): "i2", ("US", 16): "u2", ("SL", 32): "i4", ("UL", 32): "u4"}
_LAWS = ("MB", "AB")  # ITU-T G.711: mu-law, A-law
MOST_SAMPLES = 2**31 - 1
_LARGEST = 1e37  # of a physical value: 32-bit floats end at 3.4e38


class Channel(NamedTuple):
    """One channel: physical value = stored value x `slope` + `intercept`, in `unit` ("" where the file names none)."""

    name: str
    unit: str
    slope: float
    intercept: float


class Multiplex(NamedTuple):
    """What a frame of a waveform holds: samples per second, how many, its channels, and the value of padding."""

    rate_hz: float
    samples: int
    channels: tuple[Channel, ...]
    padding: int | None = None

    @classmethod
    def of(cls, values: Sequence[Any]) -> Multiplex:
        """Rebuild from the tuple or list that JSON returns."""
        rate_hz, samples, channels, padding = values
        return cls(float(rate_hz), int(samples), tuple(Channel(*one) for one in channels), padding)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each channel: a lead, or ""."""
        return tuple(channel.name for channel in self.channels)


def has_waveform(ds: Dataset) -> bool:
    """Whether the object is a signal and not an image."""
    return "WaveformSequence" in ds and "Rows" not in ds


def waveform_attributes(ds: Dataset) -> tuple[dict[str, Any], int, list[str]]:
    """Return the fields of `InstanceAttributes` that take the place of an image's, the number of frames, and what was
    left out.

    Groups that were computed from others (Waveform Originality DERIVED, such as a median beat) are left out where the
    object holds an original one.

    Raises:
        Rejected: MISSING_ATTRIBUTE, CORRUPT_HEADER, NO_SAMPLING_FREQUENCY or UNSUPPORTED_WAVEFORM.
    """
    groups = _groups(ds)
    derived = len(read_items(ds, "WaveformSequence")) - len(groups)
    waveforms = tuple(_multiplex(group) for group in groups)
    original = all(_is_original(group) for group in groups)
    types = {_dtype(group) for group in groups}
    dtype = np.result_type(*types)
    fields = {
        "waveforms": waveforms,
        "rows": max(len(one.channels) for one in waveforms),
        "columns": max(one.samples for one in waveforms),
        "bits_allocated": 8 * dtype.itemsize,
        "bits_stored": 8 * dtype.itemsize,
        "pixel_representation": int(dtype.kind == "i"),
        "photometric": "",
        "original_photometric": "",
        "lossy": any(read_code(group, "WaveformSampleInterpretation") in _LAWS for group in groups),
        "image_type": ("ORIGINAL" if original else "DERIVED", "PRIMARY"),
    }
    return fields, len(groups), [f"{Assumed.IGNORED}:{derived} derived groups"] if derived else []


def decode_waveforms(ds: Dataset, syntax: UID, limits: DecodeLimits) -> tuple[np.ndarray, tuple[Step, ...]]:
    """Decode all groups that `waveform_attributes` describes.

    Returns:
        stored [groups, channels, samples], zero beyond a group's own size, and the steps taken.

    Raises:
        Rejected: WAVEFORM_LENGTH, TOO_MANY_PIXELS, or as `waveform_attributes`.
    """
    groups = _groups(ds)
    shapes = [(len(one.channels), one.samples) for one in map(_multiplex, groups)]
    rows, columns = (max(edge) for edge in zip(*shapes, strict=True))
    dtype = np.result_type(*(_dtype(group) for group in groups))
    needed = len(groups) * rows * columns * dtype.itemsize
    if needed > limits.decoded_bytes:
        raise Rejected(
            RejectionCode.TOO_MANY_PIXELS,
            f"{len(groups)} groups of {rows} channels and {columns} samples need {needed} bytes, more than "
            f"`decoded_bytes` = {limits.decoded_bytes}. If it is genuine, raise that value in settings.yaml.",
        )
    stored = np.zeros((len(groups), rows, columns), dtype)
    for index, (group, (channels, samples)) in enumerate(zip(groups, shapes, strict=True)):
        stored[index, :channels, :samples] = _samples(group, channels, samples, syntax)
    coded = [read_code(group, "WaveformSampleInterpretation") for group in groups]
    return stored, (Step("decode", {"transfer_syntax": str(syntax), "samples": coded}),)


def to_physical_signal(stored: np.ndarray, waveforms: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, Step]:
    """Return frames [F, C, N] in physical units (float32), where they are signal (bool), and the step.

    Values beyond a group's channels and samples are 0 and not valid, and so is padding (PS3.3 C.10.9.1.7).
    """
    physical, valid = np.zeros(stored.shape, np.float32), np.zeros(stored.shape, bool)
    groups = [Multiplex.of(one) for one in waveforms]
    for frame, group in enumerate(groups):
        part = (frame, slice(len(group.channels)), slice(group.samples))
        slopes, intercepts = (
            np.array([[getattr(one, name)] for one in group.channels]) for name in Channel._fields[2:]
        )
        physical[part] = stored[part] * slopes + intercepts
        valid[part] = True if group.padding is None else stored[part] != group.padding
    return physical, valid, Step("channel-sensitivity", {"units": [[one.unit for one in g.channels] for g in groups]})


def _groups(ds: Dataset) -> list[Dataset]:
    """Return the groups to read: the original ones, or all where none is original."""
    groups = list(read_items(ds, "WaveformSequence"))
    if not groups:
        sentence = "WaveformSequence is empty: the recording has no samples. Export the complete object."
        raise Rejected(RejectionCode.NO_PIXEL_DATA, sentence)
    return [group for group in groups if _is_original(group)] or groups


def _is_original(group: Dataset) -> bool:
    return read_code(group, "WaveformOriginality") != "DERIVED"


def _multiplex(group: Dataset) -> Multiplex:
    count = require_integer(group, "NumberOfWaveformChannels", 1, 65535)
    samples = require_integer(group, "NumberOfWaveformSamples", 1, MOST_SAMPLES)
    rate = read_number(group, "SamplingFrequency")
    if rate is None or not rate > 0:
        raise Rejected(
            RejectionCode.NO_SAMPLING_FREQUENCY,
            f"SamplingFrequency is {'missing' if rate is None else rate}; it must be above 0, since the speed of the "
            "signal is unknown without it. Export the recording again from its source.",
        )
    channels = read_items(group, "ChannelDefinitionSequence")
    if len(channels) != count:
        rule = f"it must hold one item per channel, {count}, and holds {len(channels)}"
        raise malformed("ChannelDefinitionSequence", rule)
    full = 2 ** (8 * _dtype(group).itemsize - 1)
    return Multiplex(rate, samples, tuple(_channel(one, full) for one in channels), _padding(group))


def _channel(item: Dataset, full_scale: int) -> Channel:
    """Return a channel; without a unit its values are shares of the full scale."""
    source = read_first_item(item, "ChannelSourceSequence")
    named = read_first_item(item, "ChannelSensitivityUnitsSequence")
    unit, factor = _UNITS.get("" if named is None else read_optional_text(named, "CodeValue"), ("", 0.0))
    sensitivity = read_number(item, "ChannelSensitivity")
    if not unit or sensitivity is None or sensitivity == 0:
        return Channel(_lead(source, item), "", 1 / full_scale, 0.0)
    correction, baseline = (
        read_number(item, name) for name in ("ChannelSensitivityCorrectionFactor", "ChannelBaseline")
    )
    slope = sensitivity * factor * (1.0 if correction is None else correction)
    intercept = (baseline or 0.0) * factor
    if max(abs(slope) * full_scale, abs(intercept)) > _LARGEST or slope == 0:
        rule = f"with its correction and baseline it is {slope:g} and {intercept:g} {unit}, beyond 32-bit numbers"
        raise malformed("ChannelSensitivity", rule)
    return Channel(_lead(source, item), unit, slope, intercept)


def _lead(source: Dataset | None, item: Dataset) -> str:
    """Return the lead by its code, or by a label that is nothing but a lead."""
    if source is not None:
        code = read_optional_text(source, "CodingSchemeDesignator"), read_optional_text(source, "CodeValue")
        if code in _CODES:
            return _CODES[code]
    label = _LABEL.fullmatch(read_optional_text(item, "ChannelLabel").upper())
    return _NAMES.get(label[1], "") if label else ""


def _dtype(group: Dataset) -> np.dtype:
    """Return the type of decoded samples; companded ones are 16 bits (ITU-T G.711)."""
    coding = read_code(group, "WaveformSampleInterpretation")
    bits = require_integer(group, "WaveformBitsAllocated", 1, 64)
    if coding in _LAWS and bits == 8:
        return np.dtype("<i2")
    if (coding, bits) not in _PLAIN:
        raise Rejected(
            RejectionCode.UNSUPPORTED_WAVEFORM,
            f"Samples of {bits} bits as {coding or 'an unknown type'}: signed and unsigned 8, 16 and 32 bits, mu-law "
            "and A-law are read. Export the recording as one of these.",
        )
    return np.dtype("<" + _PLAIN[coding, bits])


def _padding(group: Dataset) -> int | None:
    """Return the padding value as it is after decoding, None without one."""
    value = read_value(group, "WaveformPaddingValue")
    if not isinstance(value, bytes | bytearray) or read_code(group, "WaveformSampleInterpretation") in _LAWS:
        return None
    dtype = _dtype(group)
    return int(np.frombuffer(value[: dtype.itemsize], dtype)[0]) if len(value) >= dtype.itemsize else None


def _samples(group: Dataset, channels: int, samples: int, syntax: UID) -> np.ndarray:
    """Return [channels, samples]: the data are written sample by sample, all channels of each (C.10.9.1.6)."""
    data = read_value(group, "WaveformData")
    coding = read_code(group, "WaveformSampleInterpretation")
    raw = np.dtype("u1") if coding in _LAWS else _dtype(group)
    expected = channels * samples * raw.itemsize
    length = len(data) if isinstance(data, bytes | bytearray) else 0
    if length not in (expected, expected + expected % 2):
        raise Rejected(
            RejectionCode.WAVEFORM_LENGTH,
            f"The waveform data hold {length} bytes, but {channels} channels of {samples} samples take {expected}. "
            "Copy the whole file, or correct the header at its source.",
        )
    order = raw.newbyteorder(">") if syntax == ExplicitVRBigEndian else raw
    values = np.frombuffer(data, order, channels * samples).reshape(samples, channels).T
    return {"MB": expand_mu_law, "AB": expand_a_law}[coding](values) if coding in _LAWS else values


def expand_mu_law(codes: np.ndarray) -> np.ndarray:
    """Return linear samples of 16 bits for mu-law bytes (ITU-T G.711, table 2a)."""
    flipped = ~codes.astype(np.uint8)
    exponent, mantissa = (flipped >> 4) & 7, (flipped & 15).astype(np.int32)
    size = (((mantissa << 3) + 0x84) << exponent) - 0x84
    return np.where(flipped & 0x80, -size, size).astype(np.int16)


def expand_a_law(codes: np.ndarray) -> np.ndarray:
    """Return linear samples of 16 bits for A-law bytes (ITU-T G.711, table 1a)."""
    flipped = codes.astype(np.uint8) ^ 0x55
    exponent, mantissa = ((flipped >> 4) & 7).astype(np.int32), (flipped & 15).astype(np.int32)
    size = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(exponent - 1, 0))
    return np.where(flipped & 0x80, size, -size).astype(np.int16)


def unit_of(channels: Iterable[Channel]) -> str:
    """Return the unit that all channels share, "" if they differ or have none."""
    units = {channel.unit for channel in channels}
    return units.pop() if len(units) == 1 else ""
