"""Position of the frames of a NIfTI volume in the patient, and how a multi-frame object states it (PS3.3 C.7.6.16).

NIfTI axes point to the patient's right and front, DICOM axes to the left and back (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.valuerep import DSfloat

from pipeline.dicom.identity.uids import derived_uid

MILLIMETRES = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
SKEWED = 1e-3  # cosine between two axes above which the grid is no longer a stack of frames
TO_DICOM = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """The frames of a volume in millimetres.

    Attributes:
        spacing: between rows, between columns.
        between: distance from frame to frame.
        cosines: of rows and of columns, PS3.3 C.7.6.2.1.1.
        first: position of the first frame's first pixel.
        step: vector from one frame to the next.
        written: when the file was written, the nearest known time to when its pixels were made.
    """

    spacing: tuple[float, float]
    between: float
    cosines: tuple[float, ...]
    first: tuple[float, ...]
    step: tuple[float, ...]
    written: datetime

    @classmethod
    def of_nifti(cls, header: Any, canonical: Any, written: float) -> FrameGeometry | None:
        """Return the geometry of an image along its closest canonical axes, each frame seen from the feet.

        None where the file does not give its position (no sform, no qform) or its axes are not perpendicular.

        Args:
            header: header of the file itself, because reorienting overwrites its codes.
            canonical: nibabel image whose axes are closest to right, front, head.
            written: time of the file's last change, in seconds since the epoch.
        """
        unit = MILLIMETRES.get(header.get_xyzt_units()[0])
        if unit is None or not (header["sform_code"] > 0 or header["qform_code"] > 0):
            return None
        affine = canonical.affine.astype(np.float64)
        axes = affine[:3, :3] * TO_DICOM[:, None] * unit * np.array([-1.0, -1.0, 1.0])  # columns, rows, frames
        lengths = np.linalg.norm(axes, axis=0)
        unit_axes = axes / lengths
        if np.abs(unit_axes.T @ unit_axes - np.eye(3)).max() > SKEWED:
            return None
        corner = np.array([canonical.shape[0] - 1, canonical.shape[1] - 1, 0, 1.0])
        return cls(
            spacing=(float(lengths[1]), float(lengths[0])),
            between=float(lengths[2]),
            cosines=(*(unit_axes[:, 0] + 0.0).tolist(), *(unit_axes[:, 1] + 0.0).tolist()),  # + 0.0 turns -0.0 into 0.0
            first=tuple(((affine @ corner)[:3] * TO_DICOM * unit).tolist()),
            step=tuple(axes[:, 2].tolist()),
            written=datetime.fromtimestamp(int(written), UTC),
        )


def add_geometry(ds: Dataset, geometry: FrameGeometry, frames: int) -> None:
    """Write spacing and orientation to the shared, positions to the per-frame functional groups."""
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SpacingBetweenSlices = _text(geometry.spacing), _text([geometry.between])[0]
    orientation.ImageOrientationPatient = _text(geometry.cosines)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    first, step = np.array(geometry.first), np.array(geometry.step)
    ds.PerFrameFunctionalGroupsSequence = [_placed(first + number * step) for number in range(frames)]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = derived_uid("wrap", ds.SeriesInstanceUID, "frame"), ""
    ds.ContentDate, ds.ContentTime = geometry.written.strftime("%Y%m%d"), geometry.written.strftime("%H%M%S")


def _placed(point: np.ndarray) -> Dataset:
    position, item = Dataset(), Dataset()
    position.ImagePositionPatient = _text(point)
    item.PlanePositionSequence = [position]
    return item


def _text(values: Any) -> list[DSfloat]:
    return [DSfloat(float(value), auto_format=True) for value in values]
