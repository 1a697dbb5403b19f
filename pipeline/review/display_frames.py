"""Stored pixels in a form for browsers: 8- or 16-bit integers with slope and intercept to physical units.

Values that are stored in 8 or 16 bits are sent unchanged. Wider integers that span less than 16 bits are shifted
without loss; anything else is quantised to 65 536 steps over its own range, and the page says so.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipeline.data.images.load_slice import FrameStore, frame_attributes, pixel_shape
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.luminance import MONOCHROME
from pipeline.dicom.decode.physical import DISPLAY_PERCENTILES, FEWEST_GREYS, count_greys
from pipeline.dicom.decode.voi import apply_window, is_inverted
from pipeline.errors import CatalogueError
from pipeline.types import SliceRef

LARGEST_EDGE = 4096  # pixels; a larger image is sent reduced, and its parts at full size when the reader zooms in
HELD_BYTES = 512 * 2**20  # cache of decoded large images, so that requesting a part does not decode the whole again
LARGE_BYTES = 32 * 2**20
WHOLE_16_BITS = 2**16 - 1
_SAMPLED = 16384  # pixels that decide whether a window shows the image
NATIVE = {"bool": np.uint8, "int8": np.int16, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16}

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """One image for the browser.

    Attributes:
        values: uint8, int16 or uint16 [H, W], little-endian; physical = values * slope + intercept.
        slope, intercept: of that line.
        window: (centre, width) in physical units from the file, or the 0.5 to 99.5 % range.
        invert: whether low values are bright.
        reduced: the image is this many times smaller than the stored one.
        exact: whether all distinct stored values stay distinct.
        box: (top, left, rows, columns) of the stored image that this is.
        colour: whether the file was in colour; the store keeps the brightness only.
    """

    values: np.ndarray
    slope: float
    intercept: float
    window: tuple[float, float]
    invert: bool
    reduced: int = 1
    exact: bool = True
    box: Box = (0, 0, 0, 0)
    colour: bool = False

    def about(self) -> dict[str, Any]:
        """Return everything except the pixels as JSON, with `rows`, `columns` and `dtype`."""
        plain = {name: value for name, value in asdict(replace(self, values=np.empty(0))).items() if name != "values"}
        rows, columns = self.values.shape
        return {"rows": rows, "columns": columns, "dtype": self.values.dtype.name, **plain}

    def payload(self) -> bytes:
        """Return the pixels, row by row."""
        return np.ascontiguousarray(self.values).tobytes()


class Frames:
    """Read frames from the pixel store; large ones are cached. Safe to share between threads."""

    def __init__(self, store: FrameStore) -> None:
        self._store, self._lock = store, threading.Lock()
        self._held: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()

    def read(self, ref: SliceRef, box: Box | None = None) -> Frame:
        """Return one image: whole, reduced if it is larger than `LARGEST_EDGE`, or a part of it at full size.

        Raises:
            CatalogueError: the pixel object is missing, damaged or of another size than in the catalogue.
        """
        stored = self.read_stored(ref)
        window = default_window(thinned(stored), ref)
        factor, part = 1, clipped(box, stored.shape)
        if part is not None:
            top, left, rows, columns = part
            visible = stored[top : top + rows, left : left + columns]
        else:
            visible, factor = reduced(stored)
            part = (0, 0, *stored.shape)
        return replace(_frame(visible, ref, window), reduced=factor, box=part)

    def read_stored(self, ref: SliceRef) -> np.ndarray:
        """Return the stored values [H, W] of a slice."""
        key = (ref.pixel_key, ref.frame)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        stored = self._store.get(ref.pixel_key, ref.frame)
        if stored.shape != pixel_shape(ref):
            raise CatalogueError(
                f"Slice {ref.slice_id[:12]} is {stored.shape} in the pixel store and {pixel_shape(ref)} in the "
                "catalogue. Ingest its file again."
            )
        self._hold(key, stored)
        return stored

    def _hold(self, key: tuple[str, int], stored: np.ndarray) -> None:
        if stored.nbytes < LARGE_BYTES:
            return
        with self._lock:
            self._held[key] = stored
            while len(self._held) > 1 and sum(array.nbytes for array in self._held.values()) > HELD_BYTES:
                self._held.popitem(last=False)


def thinned(stored: np.ndarray) -> np.ndarray:
    """Return every nth row and column of a large image: enough to estimate its range."""
    step = -(-max(stored.shape) // LARGEST_EDGE)
    return stored[::step, ::step]


def reduced(stored: np.ndarray) -> tuple[np.ndarray, int]:
    """Return an image whose longer edge is at most `LARGEST_EDGE`, averaged over blocks, and the factor."""
    factor = -(-max(stored.shape) // LARGEST_EDGE)
    return (stored, 1) if factor == 1 else (block_means(stored, factor), factor)


def block_means(stored: np.ndarray, factor: int) -> np.ndarray:
    """Return the means of blocks of `factor` x `factor`, in the same type; margins that do not fill a block are cut
    off.
    """
    rows, columns = (max(edge // factor, 1) for edge in stored.shape)
    total = np.zeros((rows, columns), np.float32)
    for offset in np.ndindex(min(factor, stored.shape[0]), min(factor, stored.shape[1])):
        total += stored[offset[0] :: factor, offset[1] :: factor][:rows, :columns]
    total /= min(factor, stored.shape[0]) * min(factor, stored.shape[1])
    return total if stored.dtype.kind == "f" else np.rint(total).astype(stored.dtype)


def clipped(box: Box | None, shape: tuple[int, ...]) -> Box | None:
    """Return the part of a box that lies in the image, limited to `LARGEST_EDGE`; None for no box."""
    if box is None:
        return None
    top, left = (min(max(at, 0), edge - 1) for at, edge in zip(box[:2], shape, strict=True))
    rows = min(max(box[2], 1), shape[0] - top, LARGEST_EDGE)
    columns = min(max(box[3], 1), shape[1] - left, LARGEST_EDGE)
    return top, left, rows, columns


def line_of(attributes: InstanceAttributes) -> tuple[float, float]:
    """Return (slope, intercept) of one frame's attributes; (1, 0) with a modality LUT, which is applied beforehand."""
    if attributes.modality_lut is not None or not attributes.rescale:
        return 1.0, 0.0
    return attributes.rescale[0]


def default_window(stored: np.ndarray, ref: SliceRef) -> tuple[float, float]:
    """Return (centre, width) in physical units: the file's first window that shows the image, else its range.

    A window that leaves fewer than 8 greys of more is passed over; the range is that of the valid pixels.
    """
    attributes = frame_attributes(ref.attributes, ref.frame)
    valid = _modality_table(stored, attributes)[_unpadded(stored, attributes)]
    valid = valid[np.isfinite(valid)] if valid.dtype.kind == "f" else valid
    low, high = np.percentile(valid.astype(np.float32), DISPLAY_PERCENTILES) if valid.size else (0.0, 1.0)
    slope, intercept = line_of(attributes)
    low, high = sorted((low * slope + intercept, high * slope + intercept))
    whole = float((low + high) / 2), float(max(high - low, abs(slope)))
    given = [window for window in attributes.frame_windows or attributes.windows if window[1] > 0]
    seen = valid[:: max(1, valid.size // _SAMPLED)] * slope + intercept
    most = count_greys(apply_window(seen, *whole)) if given and seen.size else 0
    shows = (one for one in given if most < FEWEST_GREYS or count_greys(apply_window(seen, *one)) >= FEWEST_GREYS)
    return next(shows, whole)


def _unpadded(stored: np.ndarray, attributes: InstanceAttributes) -> np.ndarray:
    if attributes.padding_value is None:
        return np.ones(stored.shape, bool)
    limit = attributes.padding_range_limit
    low, high = sorted((attributes.padding_value, attributes.padding_value if limit is None else limit))
    return (stored < low) | (stored > high)


def _frame(stored: np.ndarray, ref: SliceRef, window: tuple[float, float]) -> Frame:
    attributes = frame_attributes(ref.attributes, ref.frame)
    slope, intercept = line_of(attributes)
    if stored.dtype.kind == "f":  # padding far outside the tissue's range would take all 16 bits
        valid = _unpadded(stored, attributes)
        stored = np.where(valid, stored, stored[valid].min()) if valid.any() else stored
    values, step, first, exact = in_16_bits(_modality_table(stored, attributes))
    line, colour = (slope * step, slope * first + intercept), attributes.original_photometric not in MONOCHROME
    return Frame(values, *line, window, is_inverted(attributes), exact=exact, colour=colour)


def _modality_table(stored: np.ndarray, attributes: InstanceAttributes) -> np.ndarray:
    if attributes.modality_lut is None:
        return stored
    return attributes.modality_lut.apply(stored).astype(np.uint16)


def in_16_bits(stored: np.ndarray) -> tuple[np.ndarray, float, float, bool]:
    """Return (values, step, first, exact) with stored = values * step + first; see the module's docstring."""
    native = NATIVE.get(stored.dtype.name)
    if native is not None:
        return stored.astype(native, copy=False), 1.0, 0.0, True
    finite = stored[np.isfinite(stored)] if stored.dtype.kind == "f" else stored
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if stored.dtype.kind != "f" and high - low <= WHOLE_16_BITS:
        return (stored - stored.min()).astype(np.uint16), 1.0, low, True
    step = (high - low) / WHOLE_16_BITS or 1.0
    whole = np.nan_to_num(stored.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.rint((whole - low) / step).astype(np.uint16), step, low, False
