"""Geometry, value transformation and VOI per frame, from classic elements or functional groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydicom.dataset import Dataset

from pipeline.dicom.decode.fields import (
    malformed,
    read_code,
    read_first_item,
    read_integer,
    read_items,
    read_number,
    read_numbers,
    read_spare_number,
    read_text,
)
from pipeline.dicom.decode.tables import input_range, read_modality_lut, read_voi_luts
from pipeline.errors import Rejected

Value = TypeVar("Value")
VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
SPACING_MM = (1e-5, 1e4)  # from microscopes to whole bodies
FURTHEST_MM = 1e6  # from the origin of a frame of reference
_THICKNESS_MM = (0.0, SPACING_MM[1])
_BETWEEN_MM = (-SPACING_MM[1], SPACING_MM[1])  # negative in some NM (PS3.3 C.8.4.15)
_WIDEST = 32.0  # a window this many times as wide as all values that it may show leaves them 8 of 256 greys
# Defined terms of PS3.3 C.11.1.1.2; any other is free text, which may hold a name. `content` judges what it says.
RESCALE_TYPES = frozenset({"OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"})
_UNSPECIFIED = "US"
_FEWEST, _FEW_BITS = 8, 3  # steps of stored values that a window covers at least, in images of more than 3 bits


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


def frame_attributes(ds: Dataset, frames: int, ignored: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of `InstanceAttributes` that may vary between frames, and what was assumed to read them.

    `ignored` receives the keywords of malformed elements that an image can do without.
    """
    groups, assumed = Groups.read(ds, frames), list[str]()
    values = _values(groups, frames)
    voi = _voi(groups, input_range(ds, values), _narrowest(ds, values), assumed, ignored)
    return {**_spacing(groups, ignored), **_plane(groups, frames), **values, **voi}, assumed


def _constant(values: Sequence[Value]) -> tuple[Value | None, tuple[Value, ...]]:
    """Split into (the one value of all frames, ()) or (None, one value per frame)."""
    return (values[0], ()) if all(value == values[0] for value in values) else (None, tuple(values))


def read_positive_pair(ds: Dataset, keyword: str, ignored: list[str] | None = None) -> tuple[float, float] | None:
    """Return two positive distances in mm, or None where absent or not positive: some devices write 0 for unknown.

    `ignored` gets the keyword where one is negative.

    Raises:
        Rejected: CORRUPT_HEADER, one is positive and cannot be a distance between pixels (`SPACING_MM`).
    """
    pair = read_numbers(ds, keyword, 2)
    if pair is None or min(pair) <= 0:
        if pair is not None and min(pair) < 0 and ignored is not None:
            ignored.append(keyword)
        return None
    check_distances(keyword, pair, SPACING_MM)
    return pair[0], pair[1]


def read_spare_pair(ds: Dataset, keyword: str, ignored: list[str]) -> tuple[float, float] | None:
    """Return two positive distances that an image can do without; `ignored` gets the keyword of unusable ones."""
    try:
        return read_positive_pair(ds, keyword, ignored)
    except Rejected:
        ignored.append(keyword)
        return None


def check_distances(keyword: str, values: Sequence[float], limits: tuple[float, float]) -> None:
    """Refuse distances outside limits, in mm.

    Raises:
        Rejected: CORRUPT_HEADER.
    """
    for value in values:
        if not limits[0] <= value <= limits[1]:
            raise malformed(keyword, f"it is {value:g} mm and must lie in {limits[0]:g} to {limits[1]:g} mm")


def _spacing(groups: Groups, ignored: list[str]) -> dict[str, Any]:
    sources = groups.read_each("PixelMeasuresSequence") if groups.enhanced else [groups.ds]
    measures = [item for item in sources if item is not None]
    if not measures or len(measures) != len(sources):
        return {}
    spacing, spacings = _constant([read_positive_pair(item, "PixelSpacing", ignored) for item in measures])
    thickness, between = (
        _constant([read_spare_number(item, keyword, ignored, within=limits) for item in measures])[0]
        for keyword, limits in (("SliceThickness", _THICKNESS_MM), ("SpacingBetweenSlices", _BETWEEN_MM))
    )
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
    for place in filter(None, positions):
        check_distances("ImagePositionPatient", place, (-FURTHEST_MM, FURTHEST_MM))
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
    kind = kind if kind in RESCALE_TYPES or not kind else _UNSPECIFIED
    return {"rescale": rescale, "rescale_type": kind, "modality_lut": read_modality_lut(groups.ds)}


def _rescale(ds: Dataset | None) -> tuple[float, float] | None:
    if ds is None:
        return None
    slope, intercept = read_number(ds, "RescaleSlope"), read_number(ds, "RescaleIntercept")
    if slope is None and intercept is None:
        return None
    if slope == 0:
        raise malformed("RescaleSlope", "it is 0, and a slope of 0 would make all pixels equal")
    return (1.0 if slope is None else slope, 0.0 if intercept is None else intercept)


def _narrowest(ds: Dataset, values: dict[str, Any]) -> float:
    """Return the least width of a window, in output units: a rescale of slope 1e9 leaves one of 400 two greys."""
    bits = read_integer(ds, "BitsStored")
    if bits is None or bits <= _FEW_BITS or values["modality_lut"] is not None:
        return 0.0  # floats, or an image of few greys
    return _FEWEST * min((abs(slope) for slope, _ in values["rescale"]), default=1.0)


def _voi(
    groups: Groups, inputs: tuple[float, float], narrowest: float, assumed: list[str], ignored: list[str]
) -> dict[str, Any]:
    sources = [groups.ds]
    if groups.enhanced:
        sources = [item for item in groups.read_each("FrameVOILUTSequence") if item is not None] or [groups.ds]
    windows = [_windows(item, inputs, narrowest, ignored) for item in sources]
    same, varied = _constant(windows)
    function = read_text(sources[0], "VOILUTFunction").upper()
    one_each = varied and all(varied) and len(varied) == len(groups.frames)
    return {
        "windows": same or (),
        "frame_windows": tuple(item[0] for item in varied) if one_each else (),
        "voi_function": function if function in VOI_FUNCTIONS else "LINEAR",
        "voi_luts": read_voi_luts(groups.ds, inputs, assumed),
    }


def _windows(
    ds: Dataset, inputs: tuple[float, float], narrowest: float, ignored: list[str]
) -> tuple[tuple[float, float], ...]:
    """Return the usable windows; one that is malformed, or shows none or few of the values, counts as absent."""
    try:
        centres, widths = read_numbers(ds, "WindowCenter") or (), read_numbers(ds, "WindowWidth") or ()
    except Rejected:
        ignored.append("WindowCenter")
        return ()
    given = list(zip(centres, widths, strict=False))
    usable = tuple(window for window in given if window[1] > 0 and window[1] >= narrowest and _shows(window, inputs))
    ignored += ["WindowCenter"] if len(usable) < len(given) else []
    return usable


def _shows(window: tuple[float, float], inputs: tuple[float, float]) -> bool:
    """Whether a window meets the possible values, and is narrow enough to tell them apart."""
    centre, width = window
    if not math.isfinite(inputs[1] - inputs[0]):
        return True
    meets = centre - width / 2 <= inputs[1] and centre + width / 2 >= inputs[0]
    return meets and width <= _WIDEST * max(inputs[1] - inputs[0], 1.0)
