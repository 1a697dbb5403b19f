"""Preparation of an ultrasound picture before it is normalised: the fan alone, without what is burned into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from pipeline.config import Config
from pipeline.data.images.burned_marks import extend, fill, find_marks
from pipeline.data.images.fan import Region, find_fan


class UltrasoundConfig(Config):
    """Steps that only ultrasound pictures need."""

    crop: bool = Field(
        True,
        description="crop to the fan: the file's regions, else the largest part that speckle covers; a picture without "
        "a fan is not cropped",
    )
    fill_marks: bool = Field(
        True, description="fill callipers, text and ticks within the fan with the pixels that mirror them"
    )


@dataclass(frozen=True, slots=True)
class Echoes:
    """A prepared picture.

    Attributes:
        pixels: float32 [H, W], marks filled.
        valid: bool [H, W], False outside the fan; None where all of the picture is valid.
        crop: rows and columns of the fan; None without a fan.
        marks: number of pixels that were filled.
    """

    pixels: np.ndarray
    valid: np.ndarray | None
    crop: tuple[slice, slice] | None
    marks: int


def prepare(
    pixels: np.ndarray, valid: np.ndarray | None, regions: Sequence[Region], config: UltrasoundConfig
) -> Echoes:
    """Return a finite picture [H, W] without what is not the patient; it depends on this picture alone."""
    fan = find_fan(pixels, regions) if config.crop else None
    inside = np.ones(pixels.shape, dtype=bool) if valid is None else valid
    inside = inside if fan is None else inside & fan.mask
    marks, filled = np.zeros(pixels.shape, dtype=bool), pixels
    if config.fill_marks and inside.any():
        top = float(np.ptp(pixels))
        marks = find_marks(extend(pixels, inside) - float(pixels.min()), top) & inside if top > 0 else marks
        filled = fill(extend(pixels, inside), marks)
        filled = np.where(inside, filled, pixels)
    return Echoes(filled, None if inside.all() else inside, None if fan is None else fan.crop, int(marks.sum()))
