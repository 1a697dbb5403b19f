"""Series to volume: order the slices of a series and refuse irregular stacks, with a separate code for each fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from pipeline.dicom.decode.attributes import Cosines, InstanceAttributes, Vector
from pipeline.dicom.decode.slice_distance import SPACING_TOLERANCE, measure_distance, rounding_mm, send_apart
from pipeline.errors import Rejected, RejectionCode

if TYPE_CHECKING:
    T = TypeVar("T")

COSINE_TOLERANCE = 1e-3
TILT_DEGREES = 0.5

# SOP classes whose slices must have a position in the patient; a secondary capture need not (PS3.4 B.5).
CROSS_SECTIONAL = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        "1.2.840.10008.5.1.4.1.1.4",  # MR
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
        "1.2.840.10008.5.1.4.1.1.128",  # PET
        "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
    }
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Irregularities that a stack may have without being refused.

    Attributes:
        gaps: slices may be missing and distances irregular; the z spacing is None where they are irregular. Distances
            that change on purpose (`sequential`) need no such leave, except in a volume.
        tilt: slices may be shifted sideways, as with a tilted gantry; the result is an ordered stack, not a volume.
        volume_of: if set, a series that is not a regular volume of at least this many slices is refused too.
    """

    gaps: bool = False
    tilt: bool = False
    volume_of: int | None = None


REGULAR = Allowed()


@dataclass(frozen=True, slots=True)
class SeriesGeometry:
    """The slices of a series in order.

    Attributes:
        order: (instance id, frame), by position along the normal, or by instance number where positions are missing.
        relative_positions: 0..1 for each of `order`; 0.5 for a single slice.
        spacing_mm: (z, y, x), None where the files do not say; z is measured between positions, never a thickness.
        orientation: row and column cosines, None without geometry.
        is_volume: whether the slices form one regular stack of at least two.
        missing: number of slices missing from the regular stack (only with `Allowed.gaps`).
    """

    order: tuple[tuple[str, int], ...]
    relative_positions: tuple[float, ...]
    spacing_mm: tuple[float | None, float | None, float | None]
    orientation: Cosines | None
    is_volume: bool
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a series, as far as its place in a stack is concerned."""

    instance_id: str
    index: int
    number: int | None
    position: Vector | None
    cosines: Cosines | None
    spacing: tuple[float, float] | None
    size: tuple[int, int]
    thickness: float | None = None


def assemble(instances: Sequence[tuple[str, InstanceAttributes]], allowed: Allowed = REGULAR) -> SeriesGeometry:
    """Order the frames of one series and check that they form a stack.

    Args:
        instances: (instance id, attributes) of one series, in any order.
        allowed: irregularities to accept.

    Raises:
        Rejected: MIXED_SIZES, MIXED_ORIENTATION, MIXED_SPACING, DUPLICATE_SLICES, GANTRY_TILT, MISSING_SLICES,
            IRREGULAR_SPACING or NO_GEOMETRY. Projections and secondary captures without geometry are never refused,
            unless a volume is required (`Allowed.volume_of`): then NOT_A_VOLUME or TOO_FEW_SLICES.

    Source: PS3.3 C.7.6.2.1.1: a position is that of the centre of the first pixel; the normal is row x column.
    """
    geometry = _assembled(instances, allowed)
    if allowed.volume_of is not None:
        require_volume(len(geometry.order), geometry.spacing_mm, allowed.volume_of, geometry.is_volume)
    return geometry


def require_volume(slices: int, spacing_mm: Sequence[float | None], least: int, regular: bool = True) -> None:
    """Refuse a series that is not a volume.

    Args:
        slices: number of slices of the series.
        spacing_mm: (z, y, x), None where unknown.
        least: smallest number of slices of a volume.
        regular: whether the slices form one regular stack.

    Raises:
        Rejected: TOO_FEW_SLICES, or NOT_A_VOLUME where the stack is not regular or a distance is unknown.
    """
    if slices < least:
        sentence = (
            f"The series has {slices} slices, and a volume needs at least {least}. Lower data.volumes.least_slices, or "
        )
        raise Rejected(RejectionCode.TOO_FEW_SLICES, sentence + "leave data.volumes out to score it slice by slice.")
    if not regular or None in spacing_mm:
        spacing = " x ".join("unknown" if mm is None else f"{mm:g}" for mm in spacing_mm)
        sentence = (
            f"{slices} slices with a spacing (z, y, x) of {spacing} mm are not a regular stack, as a volume must be. "
        )
        raise Rejected(
            RejectionCode.NOT_A_VOLUME,
            sentence + "Leave data.volumes out to score it slice by slice; otherwise the series is left out.",
        )


def _assembled(instances: Sequence[tuple[str, InstanceAttributes]], allowed: Allowed) -> SeriesGeometry:
    frames = [frame for name, attributes in instances for frame in list_frames(name, attributes)]
    if not frames:
        raise Rejected(RejectionCode.NO_GEOMETRY, "The series holds no image, so it is left out. No action is needed.")
    projection = any(attributes.is_projection for _, attributes in instances)
    placed = [frame for frame in frames if frame.position is not None and frame.cosines is not None]
    if projection or not placed:
        if any(attributes.sop_class_uid in CROSS_SECTIONAL for _, attributes in instances):
            raise _no_geometry(len(frames), len(frames))
        return _unplaced(frames)
    if len(placed) < len(frames):
        raise _no_geometry(len(frames) - len(placed), len(frames))
    return stack_frames(placed, allowed)


def list_frames(name: str, attributes: InstanceAttributes) -> list[Frame]:
    """Return the frames of an instance in their order in the file."""

    def pick(varied: Sequence[T], same: T | None, index: int) -> T | None:
        return varied[index] if index < len(varied) else same

    return [
        Frame(
            name,
            index,
            attributes.instance_number,
            pick(attributes.positions, None, index),
            pick(attributes.orientations, attributes.orientation, index),
            pick(attributes.pixel_spacings_mm, attributes.pixel_spacing_mm, index),
            (attributes.rows, attributes.columns),
            attributes.slice_thickness_mm,
        )
        for index in range(attributes.frames)
    ]


def _no_geometry(without: int, total: int) -> Rejected:
    sentence = (
        f"{without} of {total} slices have no position or orientation, and a stack needs both. Export the series again."
    )
    return Rejected(RejectionCode.NO_GEOMETRY, sentence)


def _unplaced(frames: list[Frame]) -> SeriesGeometry:
    ordered = sorted(frames, key=lambda f: (f.number is None, f.number or 0, f.instance_id, f.index))
    last = len(ordered) - 1
    spacings = {frame.spacing for frame in frames}
    spacing = spacings.pop() if len(spacings) == 1 else None
    return SeriesGeometry(
        order=tuple((frame.instance_id, frame.index) for frame in ordered),
        relative_positions=tuple(i / last if last else 0.5 for i in range(len(ordered))),
        spacing_mm=(None, *(spacing or (None, None))),
        orientation=None,
        is_volume=False,
    )


def stack_frames(frames: list[Frame], allowed: Allowed) -> SeriesGeometry:
    """Order frames that all have a position; Rejected as `assemble`."""
    _refuse_mixed(frames)
    normal = normal_of(cast(Cosines, frames[0].cosines))
    points = np.array([frame.position for frame in frames], dtype=np.float64)
    heights = points @ normal
    order = np.argsort(heights, kind="stable")
    heights, points = heights[order], points[order]
    thicknesses = [frames[i].thickness for i in order] if allowed.volume_of is None else None
    measured = (heights, rounding_mm(points, normal), allowed.gaps, thicknesses)
    step, missing = (None, 0) if len(frames) == 1 else measure_distance(*measured)
    sheared = len(frames) > 1 and _sheared(heights, points, normal, allowed.tilt)
    extent = heights[-1] - heights[0]
    ordered = [frames[i] for i in order]
    return SeriesGeometry(
        order=tuple((frame.instance_id, frame.index) for frame in ordered),
        relative_positions=tuple(float((h - heights[0]) / extent) if extent > 0 else 0.5 for h in heights),
        spacing_mm=(step, *(frames[0].spacing or (None, None))),
        orientation=frames[0].cosines,
        is_volume=len(frames) > 1 and step is not None and not sheared,
        missing=missing,
    )


def _refuse_mixed(frames: list[Frame]) -> None:
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) > 1:
        listed = ", ".join(f"{rows} x {columns}" for rows, columns in sizes[:3])
        raise Rejected(
            RejectionCode.MIXED_SIZES,
            f"The slices have {len(sizes)} sizes ({listed}); a stack must have one. {send_apart('size')}",
        )
    cosines = np.array([frame.cosines for frame in frames])
    spread = float(np.ptp(cosines, axis=0).max())
    if spread > COSINE_TOLERANCE:
        sentence = (
            f"Direction cosines vary by {spread:.4f}, more than {COSINE_TOLERANCE}; a stack must have one orientation."
        )
        raise Rejected(RejectionCode.MIXED_ORIENTATION, f"{sentence} {send_apart('orientation')}")
    spacings = [frame.spacing for frame in frames if frame.spacing is not None]
    uneven = spacings and np.any(np.ptp(spacings, axis=0) > SPACING_TOLERANCE * np.min(spacings, axis=0))
    if uneven or 0 < len(spacings) < len(frames):
        span = f"{np.min(spacings):g} to {np.max(spacings):g} mm"
        absent = len(frames) - len(spacings)
        sentence = f"PixelSpacing is {span}" + (
            f", and missing from {absent} of {len(frames)} slices; " if absent else "; "
        )
        raise Rejected(
            RejectionCode.MIXED_SPACING,
            f"{sentence}a stack must have one. {send_apart('spacing')}",
        )


def normal_of(cosines: Cosines) -> np.ndarray:
    """Return the unit normal of a slice; Rejected with NO_GEOMETRY where the cosines are not perpendicular units."""
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = (np.linalg.norm(row), np.linalg.norm(column))
    if max(abs(length - 1.0) for length in lengths) > 0.01 or abs(row @ column) > 0.01:
        sentence = (
            f"ImageOrientationPatient holds vectors of length {lengths[0]:.4g} and {lengths[1]:.4g} whose product is "
            f"{row @ column:.4g}; they must be perpendicular units (PS3.3 C.7.6.2.1.1). Export the series again."
        )
        raise Rejected(RejectionCode.NO_GEOMETRY, sentence)
    normal = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def _sheared(heights: np.ndarray, points: np.ndarray, normal: np.ndarray, allow_tilt: bool) -> bool:
    """Whether slices shift sideways: a tilted gantry (PS3.3 C.8.2.1.1.2), or not a stack. Refused unless allowed."""
    sideways = points - points[0] - np.outer(heights - heights[0], normal)
    angles = np.degrees(np.arctan2(np.linalg.norm(sideways[1:], axis=1), heights[1:] - heights[0]))
    worst = float(angles.max())
    if worst <= TILT_DEGREES or allow_tilt:
        return worst > TILT_DEGREES
    sentence = (
        f"The slices shift {worst:.1f} degrees off their normal, more than {TILT_DEGREES}: the stack is sheared by"
    )
    advice = " a tilted gantry. Set data.allow_tilt=true to score its slices; otherwise the series is left out."
    raise Rejected(RejectionCode.GANTRY_TILT, sentence + advice)
