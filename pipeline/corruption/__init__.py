"""Corruption of normal images that a network learns to undo or to find: painted lesions with exact masks.

`paint` puts lesions into a batch, `jitter` varies a scan's intensities as scanners do, `pose` its position and shape as
patients do; each row uses its own randomness.
"""

from __future__ import annotations

from pipeline.corruption.chest_textures import Consolidation, Effusion, Nodule, Opacity
from pipeline.corruption.intensity_jitter import IntensityConfig, jitter
from pipeline.corruption.lesions import LesionConfig, Painted, fade, paint
from pipeline.corruption.painting import Lesson, PaintingFields, RepairingFields
from pipeline.corruption.pose import PoseConfig, pose
from pipeline.corruption.regions import find_region
from pipeline.corruption.shapes import ShapeConfig, draw_shape
from pipeline.corruption.textures import Cystic, Disentangled, Displaced, Foreign, Smoothed, Texture, Tinted
from pipeline.corruption.ultrasound_textures import Hypoechoic

__all__ = [
    "Consolidation",
    "Cystic",
    "Disentangled",
    "Displaced",
    "Effusion",
    "Foreign",
    "Hypoechoic",
    "IntensityConfig",
    "LesionConfig",
    "Lesson",
    "Nodule",
    "Opacity",
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
    "find_region",
    "jitter",
    "paint",
    "pose",
]
