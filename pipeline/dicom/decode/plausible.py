"""Numbers of a header that would turn an image to infinity, to one grey or to nothing are refused by name and value.

Stored values become 32-bit floats by rescale, tables and windows. Each step is tried on the least and the greatest
value of every frame, so that what passes stays finite, and what differs in the file differs in the picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.physical import to_physical
from pipeline.errors import Rejected, RejectionCode

LARGEST = float(np.finfo(np.float32).max)
_MOST_VALUES = 65536
_ADVICE = "Correct the element at its source and send the image again."


def check_values(stored: np.ndarray, attributes: InstanceAttributes) -> None:
    """Refuse an image whose header takes its values beyond 32-bit floats, or makes different values equal.

    Args:
        stored: [F, H, W], as decoded; of a signal, nothing is checked here.
        attributes: of the image.

    Raises:
        Rejected: NON_FINITE, values of 3.4e38 or more; NO_CONTRAST or EMPTY_FOREGROUND, no frame of different values
            keeps them apart: rescale, window or table take them to one, or they are all declared padding.
    """
    if attributes.waveforms or stored.size == 0:
        return
    lost: list[Rejected | None] = []
    for frame, own in enumerate(_attributes_of_frames(attributes)):
        low, high = stored[frame].min(), stored[frame].max()
        if own.padding_value is not None:
            inside = _not_padding(stored[frame], own)
            if not inside.size:
                lost += [_all_padding(own)] if low < high else []
                continue
            low, high = inside.min(), inside.max()
        _check_finite(low, high, own)
        lost += [_find_lost_contrast(low, high, own)] if low < high else []
    if lost and lost[0] is not None and all(lost):
        raise lost[0]


def _attributes_of_frames(attributes: InstanceAttributes) -> Iterator[InstanceAttributes]:
    if attributes.frames == 1 or len(attributes.rescale) <= 1 and len(attributes.frame_windows) <= 1:
        yield from [attributes.of_frame(0)] * attributes.frames
    else:
        yield from (attributes.of_frame(frame) for frame in range(attributes.frames))


def _not_padding(frame: np.ndarray, attributes: InstanceAttributes) -> np.ndarray:
    limit = attributes.padding_range_limit
    value = attributes.padding_value or 0.0
    low, high = sorted((value, value if limit is None else limit))
    return frame[(frame < low) | (frame > high)]


def _check_finite(low: np.generic, high: np.generic, attributes: InstanceAttributes) -> None:
    span = _reached(low, high, attributes)
    if max(map(abs, span)) >= LARGEST:
        raise Rejected(
            RejectionCode.NON_FINITE,
            f"{_rescale(attributes)} takes the stored values {low:g} to {high:g} to {span[0]:g} and {span[1]:g}, "
            f"beyond the {LARGEST:.2g} of a 32-bit number. {_ADVICE}",
        )


def _find_lost_contrast(low: np.generic, high: np.generic, attributes: InstanceAttributes) -> Rejected | None:
    pixels = to_physical(_between(low, high, attributes)[None, None], attributes).pixels
    if pixels.min() < pixels.max():
        return None
    cause = _cause(attributes, _reached(low, high, attributes))
    return Rejected(
        RejectionCode.NO_CONTRAST,
        f"{cause} takes all stored values, {low:g} to {high:g}, to one grey. {_ADVICE}",
    )


def _reached(low: np.generic, high: np.generic, attributes: InstanceAttributes) -> tuple[float, float]:
    """Return the ends after rescale, in double precision; a modality LUT has its own, which are 16 bits at most."""
    ends = float(low), float(high)
    if attributes.modality_lut is not None or not attributes.rescale:
        return ends
    slope, intercept = attributes.rescale[0]
    with np.errstate(over="ignore", invalid="ignore"):
        return tuple(float(np.float64(slope) * end + intercept) for end in ends)  # type: ignore[return-value]


def _between(low: np.generic, high: np.generic, attributes: InstanceAttributes) -> np.ndarray:
    """Return values that show whether contrast remains: the ends, or all of them where a table may bend back."""
    tables = attributes.modality_lut is not None or bool(attributes.voi_luts)
    if tables and low.dtype.kind in "iu" and int(high) - int(low) < _MOST_VALUES:
        return np.arange(int(low), int(high) + 1).astype(low.dtype)
    return np.array([low, high], dtype=low.dtype)


def _rescale(attributes: InstanceAttributes) -> str:
    if not attributes.rescale:
        return "The pixel data, without a rescale,"
    slope, intercept = attributes.rescale[0]
    return f"RescaleSlope {slope:g} with RescaleIntercept {intercept:g}"


def _cause(attributes: InstanceAttributes, span: tuple[float, float]) -> str:
    """Return the element that takes different values to one: the modality step, else the VOI step of a projection."""
    if attributes.modality_lut is None and np.float32(span[0]) == np.float32(span[1]):
        return _rescale(attributes)
    if attributes.is_projection and attributes.voi_luts:
        return f"The VOI LUT, whose first value is {attributes.voi_luts[0].first},"
    windows = attributes.frame_windows or attributes.windows[:1]
    if attributes.is_projection and windows:
        after = f" after {_rescale(attributes)}" if attributes.rescale not in ((), ((1.0, 0.0),)) else ""
        return f"WindowCenter {windows[0][0]:g} with WindowWidth {windows[0][1]:g}{after}"
    return "The Modality LUT"


def _all_padding(attributes: InstanceAttributes) -> Rejected:
    limit = attributes.padding_range_limit
    ends = f"{attributes.padding_value:g}" + ("" if limit is None else f" to PixelPaddingRangeLimit {limit:g}")
    return Rejected(
        RejectionCode.EMPTY_FOREGROUND,
        f"PixelPaddingValue {ends} declares every pixel of a frame to be padding, although they differ. {_ADVICE}",
    )
