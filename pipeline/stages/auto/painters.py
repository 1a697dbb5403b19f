"""Two painters of lesions: one that members learn from, and another, whose lesions none of them has seen.

Both are broad on purpose, since nothing about the disease is known: both signs, every size, soft and hard outlines.
The second paints cavities and foreign tissue, which the first never does, and haze wider and fainter than its tints.
"""

from __future__ import annotations

from typing import Any

from pipeline.corruption.lesions import LesionConfig
from pipeline.corruption.shapes import ShapeConfig
from pipeline.corruption.textures import Cystic, Displaced, Foreign, Smoothed, Tinted

LEARNED = LesionConfig(
    shape=ShapeConfig(radius=(0.03, 0.2)),
    textures=(Tinted(weight=2.0, brighter=0.5, contrast=(0.1, 0.8)), Smoothed(weight=1.0), Displaced(weight=1.0)),
)
HELD_OUT: dict[str, LesionConfig] = {
    "cavities": LesionConfig(
        healthy=0.0, most=1, shape=ShapeConfig(radius=(0.05, 0.12), ragged=(0.0, 0.2)), textures=(Cystic(),)
    ),
    "foreign tissue": LesionConfig(
        healthy=0.0, most=1, shape=ShapeConfig(radius=(0.06, 0.15), stretch=1.5), textures=(Foreign(),)
    ),
    "wide, faint haze": LesionConfig(
        healthy=0.0,
        most=1,
        shape=ShapeConfig(radius=(0.22, 0.4), ragged=(0.0, 0.3), edge=(0.6, 1.0)),
        textures=(Tinted(brighter=0.5, contrast=(0.08, 0.25), wipe=(0.0, 0.5)),),
    ),
}


def painting(mirrored: bool) -> dict[str, Any]:
    """Return the fields of a method that paints with the first painter."""
    return {
        "lesions": LEARNED.model_dump(mode="json"),
        "intensity": {"gamma": 1.4, "gain": 0.15, "noise": 0.03},
        "pose": {"mirror": mirrored},
    }
