"""The parts of a DICOM header that Nightread keeps: allow-listed attributes and, apart from them, the raw identity.

Nothing else of a header travels on. The catalogue stores `InstanceAttributes`; `RawIdentity` goes only to the crosswalk
and otherwise never leaves memory. `pipeline.dicom.decode.header` fills both from a data set.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np

# Projection modalities: the image as displayed, VOI and inversion included, is the physical image.
PROJECTION = frozenset({"CR", "DX", "MG", "XA", "RF", "IO", "PX", "DR", "RG", "DS"})

# Fields that lossless transcoding may change, so no content hash covers them.
ENCODING_FIELDS = frozenset({"transfer_syntax_uid", "original_photometric", "bits_allocated", "assumed"})

NAN_PADDING = -1e30  # stored in place of NaN where the file says that NaN is padding (PS3.3 C.7.6.24)

AGE_BANDS = ((17, "0-17"), (39, "18-39"), (59, "40-59"), (79, "60-79"))

Vector = tuple[float, float, float]
Cosines = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True, repr=False)
class RawIdentity:
    """Patient and object identifiers as written in a file. PHI: memory and crosswalk only; its repr shows nothing.

    Attributes:
        issuer: (0010,0021) IssuerOfPatientID or "".
        patient_id: (0010,0020) without surrounding blanks; may be "".
        study_uid, series_uid, sop_uid: (0020,000D), (0020,000E), (0008,0018).
        accession_number: (0008,0050) or "".
        study_date: (0008,0020) as YYYYMMDD or "".
        frame_of_reference_uid: (0020,0052): what the positions are relative to; "" where absent or not a UID.
    """

    issuer: str = ""
    patient_id: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    accession_number: str = ""
    study_date: str = ""
    frame_of_reference_uid: str = ""

    def __repr__(self) -> str:
        return "RawIdentity(hidden)"


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A Modality or VOI LUT (PS3.3 C.11.1, C.11.2). Its entries are packed to keep the JSON small.

    Attributes:
        first: the stored value that the first entry maps; smaller inputs take the first entry.
        bits: bits of an entry, the third descriptor value.
        packed: the entries, little-endian unsigned 16-bit, zlib-compressed, then base64.
    """

    first: int
    bits: int
    packed: str

    @classmethod
    def pack(cls, first: int, bits: int, values: np.ndarray) -> LookupTable:
        """Build a table from its entries, integers in [0, 65535]."""
        data = np.ascontiguousarray(values, dtype="<u2").tobytes()
        return cls(int(first), int(bits), base64.b64encode(zlib.compress(data)).decode("ascii"))

    @property
    def values(self) -> np.ndarray:
        """The entries, uint16 [N]."""
        return np.frombuffer(zlib.decompress(base64.b64decode(self.packed)), dtype="<u2")

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Map integers to entries (float32, same shape); values outside take the nearest end (PS3.3 C.11.1.1)."""
        table = self.values.astype(np.float32)
        index = np.clip(stored.astype(np.int64) - self.first, 0, len(table) - 1)
        return table[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceAttributes:
    """The allow-listed attributes of one instance; `to_json` and `from_json` are inverses.

    Attributes:
        transfer_syntax_uid: of the file as it arrived; not part of any hash.
        description: tokens of SeriesDescription and ProtocolName that are in a fixed vocabulary; no free text.
        age_years: from PatientAge; ages above 89 become 90.
        photometric: of the stored luminance (MONOCHROME1 or MONOCHROME2); `original_photometric` is that of the file.
        bits_stored, pixel_representation: of the stored luminance.
        pixel_spacing_mm: (row, column) distance in the patient; None where the file gives none or it varies by frame.
        pixel_spacings_mm, orientations: one per frame, filled only where they vary between frames.
        imager_pixel_spacing_mm: at the detector, before magnification; it is never a distance in the patient.
        positions: ImagePositionPatient of each frame, or empty.
        rescale: (slope, intercept), one for all frames or one per frame; empty where the file gives none.
        windows: alternative (centre, width) pairs for all frames; `frame_windows`: one per frame where they vary.
        padding_value, padding_range_limit: stored values (0028,0120) and (0028,0121), or (0028,0122) to (0028,0125).
        burned_in: (0028,0301), None where it is absent.
        content: what the values are where they are not plain anatomy (`pipeline.dicom.decode.content`), else "".
        assumed: deviations from the standard that were read in spite of it (`vendors.Assumed`).
        ultrasound_regions: (x0, y0, x1, y1) of each two-dimensional region of tissue (0018,6011), in pixels.
        stack_facts: what may tell the stacks of a series apart (`pipeline.dicom.decode.stack_facts`).
        waveforms: of a signal instead of an image, one multiplex group per frame (`pipeline.dicom.decode.waveform`).
    """

    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    modality: str = ""
    body_part: str = ""
    view: str = ""
    laterality: str = ""
    image_type: tuple[str, ...] = ()
    description: tuple[str, ...] = ()
    manufacturer: str = ""
    scanner: str = ""
    kernel: str = ""
    sex: str = ""
    age_years: int | None = None
    site: str = ""
    rows: int = 0
    columns: int = 0
    frames: int = 1
    bits_allocated: int = 16
    bits_stored: int = 16
    pixel_representation: int = 0
    photometric: str = "MONOCHROME2"
    original_photometric: str = "MONOCHROME2"
    conversion_type: str = ""
    lossy: bool = False
    instance_number: int | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    pixel_spacings_mm: tuple[tuple[float, float], ...] = ()
    imager_pixel_spacing_mm: tuple[float, float] | None = None
    slice_thickness_mm: float | None = None
    spacing_between_slices_mm: float | None = None
    gantry_tilt_degrees: float | None = None
    positions: tuple[Vector, ...] = ()
    orientation: Cosines | None = None
    orientations: tuple[Cosines, ...] = ()
    rescale: tuple[tuple[float, float], ...] = ()
    rescale_type: str = ""
    modality_lut: LookupTable | None = None
    voi_luts: tuple[LookupTable, ...] = ()
    windows: tuple[tuple[float, float], ...] = ()
    frame_windows: tuple[tuple[float, float], ...] = ()
    voi_function: str = "LINEAR"
    presentation_lut_shape: str = ""
    padding_value: float | None = None
    padding_range_limit: float | None = None
    burned_in: bool | None = None
    ultrasound_regions: tuple[tuple[int, int, int, int], ...] = ()
    stack_facts: tuple[tuple[str, tuple[float | str, ...]], ...] = ()
    waveforms: tuple[tuple[Any, ...], ...] = ()
    content: str = ""
    assumed: tuple[str, ...] = ()

    @property
    def age_band(self) -> str:
        """Age group for subgroup tables: "", "0-17", "18-39", "40-59", "60-79" or "80+"."""
        if self.age_years is None:
            return ""
        return next((band for last, band in AGE_BANDS if self.age_years <= last), "80+")

    def assuming(self, *names: str) -> InstanceAttributes:
        """Return the attributes with more names in `assumed`, each once."""
        return (
            replace(self, assumed=tuple(dict.fromkeys(str(name) for name in (*self.assumed, *names))))
            if names
            else self
        )

    @property
    def is_projection(self) -> bool:
        """Whether the modality is a projection (CR, DX, MG, XA, ...): VOI and inversion are then physical."""
        return self.modality in PROJECTION

    def of_frame(self, frame: int) -> InstanceAttributes:
        """Return the attributes of one frame: values given per frame are reduced to those of this frame."""
        if self.frames == 1:
            return self
        return replace(
            self,
            frames=1,
            rescale=_of_frame(self.rescale, frame),
            frame_windows=_of_frame(self.frame_windows, frame),
            positions=_of_frame(self.positions, frame),
            orientations=_of_frame(self.orientations, frame),
            pixel_spacings_mm=_of_frame(self.pixel_spacings_mm, frame),
            waveforms=_of_frame(self.waveforms, frame),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON; fields with their default value are omitted."""
        return {
            name: _plain(value)
            for name, default in _defaults()
            if (value := getattr(self, name)) is not default and value != default
        }

    def content_json(self) -> dict[str, Any]:
        """Like `to_json`, without the fields that lossless transcoding may change: the input of content hashes."""
        return {name: value for name, value in self.to_json().items() if name not in ENCODING_FIELDS}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> InstanceAttributes:
        """Rebuild from `to_json`; unknown keys are ignored, missing ones take their default."""
        names = _names()
        return cls(**{name: _typed(value) for name, value in values.items() if name in names})


@cache
def _names() -> frozenset[str]:
    return frozenset(name for name, _ in _defaults())


@cache
def _defaults() -> tuple[tuple[str, Any], ...]:
    """Return the fields with their defaults; `dataclasses.fields` builds its answer again each time."""
    return tuple((field.name, field.default) for field in fields(InstanceAttributes))


def _of_frame(values: tuple[Any, ...], frame: int) -> tuple[Any, ...]:
    return values if len(values) <= 1 else (values[frame],)


_NESTED = (list, tuple, dict, LookupTable)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) if isinstance(item, _NESTED) else item for item in value]
    if isinstance(value, LookupTable):
        return {"first": value.first, "bits": value.bits, "packed": value.packed}
    return value


def _typed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple([_typed(item) if isinstance(item, _NESTED) else item for item in value])
    if isinstance(value, Mapping):
        return LookupTable(**value)
    return value
