"""Load one physical image for a catalogue reference: read stored values from the pixel store, rescale and invert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from pipeline.data.images.normalise import Plane, planes
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.physical import to_physical
from pipeline.errors import CatalogueError
from pipeline.types import SliceRef


class FrameStore(Protocol):
    """The part of `pipeline.data.store.pixel_store.PixelStore` that is used here."""

    def get(self, key: str, frame: int | None = None) -> np.ndarray:
        """Return stored values [F, H, W], or one frame [H, W]."""


def load_plane(store: FrameStore, ref: SliceRef) -> Plane:
    """Read one slice and return it in physical units.

    Raises:
        CatalogueError: the pixel object is missing, damaged, or differs in size from the catalogue.
        Rejected: its values cannot be converted to physical units.
    """
    attributes = frame_attributes(ref.attributes, ref.frame)
    stored = store.get(ref.pixel_key, ref.frame)
    _check_size(stored.shape, (attributes.rows, attributes.columns), ref)
    physical = to_physical(stored[None], attributes)
    return next(planes(physical))


def load_mask(store: FrameStore, ref: SliceRef) -> np.ndarray | None:
    """Read the lesion mask of one slice, bool [H, W] on the native grid; or None without a mask in the catalogue."""
    if ref.mask_key is None:
        return None
    mask = store.get(ref.mask_key, ref.frame)
    _check_size(mask.shape, pixel_shape(ref), ref)
    return mask > 0


def frame_attributes(values: Mapping[str, Any], frame: int) -> InstanceAttributes:
    """Return the attributes of one frame: values given per frame are reduced to those of this frame."""
    return InstanceAttributes.from_json(values).of_frame(frame)


def pixel_shape(ref: SliceRef) -> tuple[int, int]:
    """Return (rows, columns) of a slice, from the catalogue."""
    return int(ref.attributes.get("rows", 0)), int(ref.attributes.get("columns", 0))


def _check_size(size: tuple[int, ...], declared: tuple[int, int], ref: SliceRef) -> None:
    if tuple(size) != declared:
        raise CatalogueError(
            f"Slice {ref.slice_id} has {declared} rows and columns in the catalogue but {tuple(size)} in the pixel "
            "store. Ingest its file again."
        )
