"""Labelled scans whose lesions a `controlnet` learns to draw from their masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from pipeline.config import Config
from pipeline.data.sets.selection import Selection


class MasksConfig(Config):
    """Learning from labelled scans and the masks of their lesions, which a model of normality never does."""

    labelled_in: tuple[Literal["gate", "develop"], ...] = Field(
        ("gate",), min_length=1, description="sets whose labelled slices are learned from as well, lesions included"
    )


def with_known_masks(selection: Selection) -> Selection:
    """Return the selection without abnormal slices that have no mask: an empty one would say that nothing is there."""
    return replace(selection, slices=tuple(ref for ref in selection.slices if ref.label == "normal" or ref.mask_key))
