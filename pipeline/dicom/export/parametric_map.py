"""Anomaly map of a finding as a Parametric Map (PS3.3 A.75) on the original geometry, in the detector's own units."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pipeline.dicom.export.described import (
    MAP,
    NOT_FOR_DIAGNOSIS,
    Described,
    SourceImage,
    decimal,
    equipment,
    finish,
    series_of,
)
from pipeline.dicom.export.one_grid import fitting


def parametric_map(finding: Described, images: Sequence[SourceImage]) -> Dataset | None:
    """Return the stored heatmaps as 32-bit floats, one frame per image.

    None without a heatmap, or where the originals have no frame of reference: highdicom 0.28 cannot index the frames of
    such a map, so a radiograph has its picture and segmentation only.

    The values are raw: higher is more unusual, and 0 is what the detector did not read (outside the body).
    `one_grid.left_out` reports the images it omits.

    Raises:
        ValueError: highdicom refuses the originals because they do not fit together.
    """
    usable = fitting(images)
    if not usable or "FrameOfReferenceUID" not in usable[0].dataset:
        return None
    values = np.stack([np.asarray(image.heatmap, dtype=np.float32) for image in usable])
    low, high = float(values.min()), float(values.max())
    ds = hd.pm.ParametricMap(
        source_images=[usable[0].dataset] if usable[0].several else [image.dataset for image in usable],
        pixel_array=values,
        plane_positions=_positions(usable),
        real_world_value_mappings=[_as_it_is(low, high)],
        voi_lut_transformations=[_window(finding, low, high)],
        contains_recognizable_visual_features=False,
        content_description=NOT_FOR_DIAGNOSIS[:64],
        content_label="ANOMALY_MAP",
        **series_of(finding, "pm"),
        **equipment(finding),
    )
    return finish(ds, finding, "pm", usable[0].dataset)


def _positions(images: Sequence[SourceImage]) -> list[hd.PlanePositionSequence] | None:
    """Return the positions of the chosen frames of a multi-frame original; None for single-frame ones, which give them
    themselves.
    """
    if not images[0].several:
        return None
    groups = images[0].dataset.PerFrameFunctionalGroupsSequence
    return [hd.PlanePositionSequence.from_sequence(groups[image.frame].PlanePositionSequence) for image in images]


def _as_it_is(low: float, high: float) -> hd.pm.RealWorldValueMapping:
    """Return the identity: stored values are the detector's own, which have no unit."""
    return hd.pm.RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation=MAP.meaning,
        unit=codes.UCUM.NoUnits,
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=MAP,
    )


def _window(finding: Described, low: float, high: float) -> hd.VOILUTTransformation:
    """Return a window from 0 to twice the outline's threshold, so that maps of one detector look alike; without a
    threshold, the range of the values.
    """
    top = high if finding.pixel_threshold is None else 2 * finding.pixel_threshold
    bottom = min(low, 0.0)
    width = max(top - bottom, 1e-6)
    return hd.VOILUTTransformation(window_center=decimal(bottom + width / 2), window_width=decimal(width))
