"""Corruption of normal images that a network learns to undo or to find: painted lesions with exact masks.

`paint` puts lesions into a batch, `jitter` varies a scan's intensities as scanners do, `pose` its position and shape as
patients do; each row uses its own randomness.
"""

from __future__ import annotations

from pipeline.corruption.intensity_jitter import IntensityConfig, jitter
from pipeline.corruption.lesions import LesionConfig, Painted, fade, paint
from pipeline.corruption.painting import Lesson, PaintingFields, RepairingFields
from pipeline.corruption.pose import PoseConfig, pose
from pipeline.corruption.shapes import ShapeConfig, draw_shape
from pipeline.corruption.textures import Cystic, Disentangled, Displaced, Foreign, Smoothed, Texture, Tinted

__all__ = [
    "Cystic",
    "Disentangled",
    "Displaced",
    "Foreign",
    "IntensityConfig",
    "LesionConfig",
    "Lesson",
    "Painted",
    "PaintingFields",
    "PoseConfig",
    "RepairingFields",
    "ShapeConfig",
    "Smoothed",
    "Texture",
    "Tinted",
    "draw_shape",
    "fade",
    "jitter",
    "paint",
    "pose",
]
