"""Numbers of a header that would turn an image to infinity, to few greys or to nothing are refused by name and value.

Stored values become 32-bit floats by rescale and tables. That step is tried on values from the least to the greatest of
every frame, so that what passes stays finite, and an image of many values keeps several. The window or table of a
projection is tried too; one that leaves few greys is ignored and recorded, as an image can do without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.physical import FEWEST_GREYS, apply_modality
from pipeline.dicom.decode.voi import apply_voi, voi_step
from pipeline.errors import Rejected, RejectionCode

LARGEST = float(np.finfo(np.float32).max)
_MOST_VALUES = 65536
_MANY = 64  # an image of so many stored values must keep FEWEST_GREYS of 256
_TRIED = 65  # values along the range, and along the window
_ADVICE = "Correct the element at its source and send the image again."


def check_values(stored: np.ndarray, attributes: InstanceAttributes) -> InstanceAttributes:
    """Refuse an image whose header takes its values beyond 32-bit floats, or makes different values equal.

    Returns the attributes, of a projection without a window or VOI LUT that leaves few greys in every frame.

    Args:
        stored: [F, H, W], as decoded; of a signal, nothing is checked here.
        attributes: of the image.

    Raises:
        Rejected: NON_FINITE, values of 3.4e38 or more; NO_CONTRAST or EMPTY_FOREGROUND, no frame of different values
            keeps them apart: rescale or Modality LUT leave one, or fewer than 8 of many, or they are all declared
            padding.
    """
    if attributes.waveforms or stored.size == 0:
        return attributes
    lost: list[Rejected | None] = []
    dim: list[bool] = []
    for frame, own in enumerate(_attributes_of_frames(attributes)):
        low, high = stored[frame].min(), stored[frame].max()
        if own.padding_value is not None:
            inside = _not_padding(stored[frame], own)
            if not inside.size:
                lost += [_all_padding(own)] if low < high else []
                continue
            low, high = inside.min(), inside.max()
        _check_finite(low, high, own)
        if low < high:
            values = apply_modality(_between(low, high, own)[None, None], own)[0]
            needed = FEWEST_GREYS if low.dtype.kind not in "iu" or int(high) - int(low) >= _MANY else 2
            lost.append(_find_lost_contrast(low, high, own, values, needed))
            dim.append(own.is_projection and voi_step(own) is not None and _count_greys(values, own) < needed)
    if lost and lost[0] is not None and all(lost):
        raise lost[0]
    return _without_voi(attributes) if dim and all(dim) else attributes


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


def _find_lost_contrast(
    low: np.generic, high: np.generic, attributes: InstanceAttributes, values: np.ndarray, needed: int
) -> Rejected | None:
    left = len(np.unique(values))
    if left >= min(needed, values.size):
        return None
    reached = "one grey" if left == 1 else f"{left} values, where at least {needed} are needed"
    cause = "The Modality LUT" if attributes.modality_lut is not None else _rescale(attributes)
    return Rejected(
        RejectionCode.NO_CONTRAST,
        f"{cause} takes all stored values, {low:g} to {high:g}, to {reached}. {_ADVICE}",
    )


def _count_greys(values: np.ndarray, attributes: InstanceAttributes) -> int:
    return len(np.unique(np.rint(apply_voi(values, attributes) * 255)))


def _without_voi(attributes: InstanceAttributes) -> InstanceAttributes:
    """Return the attributes without window and VOI LUT, and with a note of which was ignored."""
    ignored = "ignored:VOILUTSequence" if attributes.voi_luts else "ignored:WindowCenter"
    return replace(attributes, windows=(), frame_windows=(), voi_luts=()).assuming(ignored)


def _reached(low: np.generic, high: np.generic, attributes: InstanceAttributes) -> tuple[float, float]:
    """Return the ends after rescale, in double precision; a modality LUT has its own, which are 16 bits at most."""
    ends = float(low), float(high)
    if attributes.modality_lut is not None or not attributes.rescale:
        return ends
    slope, intercept = attributes.rescale[0]
    with np.errstate(over="ignore", invalid="ignore"):
        return tuple(float(np.float64(slope) * end + intercept) for end in ends)  # type: ignore[return-value]


def _between(low: np.generic, high: np.generic, attributes: InstanceAttributes) -> np.ndarray:
    """Return values that show whether contrast remains: all of them where a table may bend back, else many along the
    range and along the window.
    """
    tables = attributes.modality_lut is not None or bool(attributes.voi_luts)
    is_whole = low.dtype.kind in "iu"
    if tables and is_whole and int(high) - int(low) < _MOST_VALUES:
        return np.arange(int(low), int(high) + 1).astype(low.dtype)
    ends = float(low), float(high)
    values = np.concatenate([np.linspace(*ends, _TRIED), *_in_window(attributes)])
    values = np.clip(np.rint(values) if is_whole else values, *ends)
    return np.unique(np.concatenate([values.astype(low.dtype), np.array([low, high], dtype=low.dtype)]))


def _in_window(attributes: InstanceAttributes) -> Iterator[np.ndarray]:
    """Yield stored values across a projection's window, and as far again beyond, since a sigmoid has tails."""
    windows = attributes.frame_windows or attributes.windows[:1]
    if not attributes.is_projection or not windows or attributes.modality_lut is not None:
        return
    slope, intercept = attributes.rescale[0] if attributes.rescale else (1.0, 0.0)
    centre, width = windows[0]
    yield (np.linspace(centre - width, centre + width, _TRIED) - intercept) / slope


def _rescale(attributes: InstanceAttributes) -> str:
    if not attributes.rescale:
        return "The pixel data, without a rescale,"
    slope, intercept = attributes.rescale[0]
    return f"RescaleSlope {slope:g} with RescaleIntercept {intercept:g}"


def _all_padding(attributes: InstanceAttributes) -> Rejected:
    limit = attributes.padding_range_limit
    ends = f"{attributes.padding_value:g}" + ("" if limit is None else f" to PixelPaddingRangeLimit {limit:g}")
    return Rejected(
        RejectionCode.EMPTY_FOREGROUND,
        f"PixelPaddingValue {ends} declares every pixel of a frame to be padding, although they differ. {_ADVICE}",
    )
