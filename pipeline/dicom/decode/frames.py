"""Geometry, value transformation and VOI per frame, from classic elements or functional groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from pydicom.dataset import Dataset

from pipeline.dicom.decode.attributes import LookupTable
from pipeline.dicom.decode.fields import (
    malformed,
    read_code,
    read_first_item,
    read_items,
    read_number,
    read_numbers,
    read_text,
    read_value,
)
from pipeline.errors import Rejected

Value = TypeVar("Value")
MAX_LUT_ENTRIES = 65536
VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, slots=True)
class Groups:
    """Functional groups of an enhanced multi-frame image. For a classic image the data set takes their place."""

    ds: Dataset
    shared: Dataset | None
    frames: Sequence[Dataset]

    @classmethod
    def read(cls, ds: Dataset, frames: int) -> Groups:
        """Read the groups of `ds`, which declares `frames` frames.

        Raises:
            Rejected: CORRUPT_HEADER, the number of per-frame items differs from `frames`.
        """
        per_frame = read_items(ds, "PerFrameFunctionalGroupsSequence")
        if per_frame and len(per_frame) != frames:
            rule = f"it must hold one item per frame, {frames}, and holds {len(per_frame)}"
            raise malformed("PerFrameFunctionalGroupsSequence", rule)
        return cls(ds, read_first_item(ds, "SharedFunctionalGroupsSequence"), per_frame)

    def read_macro(self, name: str, frame: int) -> Dataset | None:
        """Return a macro's item for one frame: per-frame before shared, or None where neither has it."""
        own = read_first_item(self.frames[frame], name) if self.frames else None
        return own if own is not None else read_first_item(self.shared, name)

    def read_each(self, name: str) -> list[Dataset | None]:
        """Return the macro for every frame, or a single item when only the shared groups contain it."""
        if any(name in item for item in self.frames):
            return [self.read_macro(name, frame) for frame in range(len(self.frames))]
        return [read_first_item(self.shared, name)]

    @property
    def enhanced(self) -> bool:
        """Whether the image has functional groups."""
        return self.shared is not None or bool(self.frames)


def frame_attributes(ds: Dataset, frames: int) -> dict[str, Any]:
    """Return the fields of `InstanceAttributes` that may vary between frames."""
    groups = Groups.read(ds, frames)
    return {**_spacing(groups), **_plane(groups, frames), **_values(groups, frames), **_voi(groups)}


def _constant(values: Sequence[Value]) -> tuple[Value | None, tuple[Value, ...]]:
    """Split into (the one value of all frames, ()) or (None, one value per frame)."""
    return (values[0], ()) if all(value == values[0] for value in values) else (None, tuple(values))


def read_positive_pair(ds: Dataset, keyword: str) -> tuple[float, float] | None:
    """Return two positive distances, or None where absent or not positive: some devices write 0 for unknown."""
    pair = read_numbers(ds, keyword, 2)
    return None if pair is None or min(pair) <= 0 else (pair[0], pair[1])


def _spacing(groups: Groups) -> dict[str, Any]:
    sources = groups.read_each("PixelMeasuresSequence") if groups.enhanced else [groups.ds]
    measures = [item for item in sources if item is not None]
    if not measures or len(measures) != len(sources):
        return {}
    spacing, spacings = _constant([read_positive_pair(item, "PixelSpacing") for item in measures])
    thickness, _ = _constant([read_number(item, "SliceThickness") for item in measures])
    between, _ = _constant([read_number(item, "SpacingBetweenSlices") for item in measures])
    return {
        "pixel_spacing_mm": spacing,
        "pixel_spacings_mm": () if None in spacings else spacings,
        "slice_thickness_mm": thickness,
        "spacing_between_slices_mm": between,
    }


def _plane(groups: Groups, frames: int) -> dict[str, Any]:
    if groups.enhanced:
        places, planes = groups.read_each("PlanePositionSequence"), groups.read_each("PlaneOrientationSequence")
    else:
        places, planes = [groups.ds], [groups.ds]
    positions = [read_numbers(item, "ImagePositionPatient", 3) if item is not None else None for item in places]
    cosines = [read_numbers(item, "ImageOrientationPatient", 6) if item is not None else None for item in planes]
    orientation, orientations = _constant(cosines)
    complete = None not in positions and len(positions) == frames
    return {
        "positions": tuple(positions) if complete else (),
        "orientation": orientation,
        "orientations": () if None in orientations else orientations,
    }


def _values(groups: Groups, frames: int) -> dict[str, Any]:
    sources = groups.read_each("PixelValueTransformationSequence") if groups.enhanced else [groups.ds]
    if sources == [None]:
        sources = [groups.ds]
    transformations = [_rescale(item) for item in sources]
    present = [item for item in transformations if item is not None]
    if present and len(present) != len(transformations):
        raise malformed("RescaleSlope", "either all frames must have it or no frame")
    rescale = tuple(present[:1]) if len(set(present)) <= 1 else tuple(present)
    kind = next((read_code(item, "RescaleType") for item in sources if item is not None), "")
    return {"rescale": rescale, "rescale_type": kind, "modality_lut": _table(groups.ds, "ModalityLUTSequence", True)}


def _rescale(ds: Dataset | None) -> tuple[float, float] | None:
    if ds is None:
        return None
    slope, intercept = read_number(ds, "RescaleSlope"), read_number(ds, "RescaleIntercept")
    if slope is None and intercept is None:
        return None
    if slope == 0:
        raise malformed("RescaleSlope", "a slope of 0 would make all pixels equal")
    return (1.0 if slope is None else slope, 0.0 if intercept is None else intercept)


def _voi(groups: Groups) -> dict[str, Any]:
    sources = [groups.ds]
    if groups.enhanced:
        sources = [item for item in groups.read_each("FrameVOILUTSequence") if item is not None] or [groups.ds]
    windows = [_windows(item) for item in sources]
    same, varied = _constant(windows)
    function = read_text(sources[0], "VOILUTFunction").upper()
    table = _table(groups.ds, "VOILUTSequence", False)
    one_each = varied and all(varied) and len(varied) == len(groups.frames)
    return {
        "windows": same or (),
        "frame_windows": tuple(item[0] for item in varied) if one_each else (),
        "voi_function": function if function in VOI_FUNCTIONS else "LINEAR",
        "voi_luts": () if table is None else (table,),
    }


def _windows(ds: Dataset) -> tuple[tuple[float, float], ...]:
    """Return the usable windows. A window only affects display, so a malformed one counts as absent."""
    try:
        centres, widths = read_numbers(ds, "WindowCenter") or (), read_numbers(ds, "WindowWidth") or ()
    except Rejected:
        return ()
    return tuple((centre, width) for centre, width in zip(centres, widths, strict=False) if width > 0)


def _table(ds: Dataset, sequence: str, physical: bool) -> LookupTable | None:
    """Return the first lookup table of a sequence (PS3.3 C.11.1.1.1, C.11.2.1.1)."""
    item = read_first_item(ds, sequence)
    descriptor = read_numbers(item, "LUTDescriptor", 3) if item is not None else None
    data = read_value(item, "LUTData") if item is not None else None
    if descriptor is None or data is None:
        if item is not None and physical:
            raise malformed("LUTData", "a modality LUT needs both LUTDescriptor and LUTData")
        return None
    length, first, bits = (int(value) for value in descriptor)
    values = _entries(ds, data, length or MAX_LUT_ENTRIES, bits)
    signed = read_value(ds, "PixelRepresentation") == 1
    # The descriptor's VR is US or SS. With the wrong one a negative first value appears as 65536 more than it is.
    return LookupTable.pack(first - 65536 if signed and first > 32767 else first, bits, values)


def _entries(ds: Dataset, data: Any, length: int, bits: int) -> np.ndarray:
    if not 1 <= length <= MAX_LUT_ENTRIES or not 8 <= bits <= 16:
        raise malformed("LUTDescriptor", "a table must have 1 to 65536 entries of 8 to 16 bits")
    # LUTData may be OW (bytes in the file's byte order) or US; 8-bit tables are stored packed by some devices.
    if isinstance(data, bytes):
        order = ">" if ds.original_encoding[1] is False else "<"
        wide = len(data) >= 2 * length
        values = np.frombuffer(data[: 2 * length if wide else length], dtype=f"{order}u2" if wide else "u1")
    else:
        values = np.asarray(data if isinstance(data, Sequence) else [data], dtype=np.int64) & 0xFFFF
    if len(values) < length:
        raise malformed("LUTData", f"the descriptor declares {length} entries and the data holds {len(values)}")
    return values[:length].astype(np.uint16)
