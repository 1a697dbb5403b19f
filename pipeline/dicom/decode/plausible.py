"""Numbers of a header that would turn an image to infinity, to few greys or to nothing are refused by name and value.

Stored values become 32-bit floats by rescale and tables. That step is tried on the least and greatest value of every
frame and on a sample of its pixels, so that what passes stays finite, and an image of many values keeps several. The
window or table of a projection is tried too; one that leaves few greys, or the greys of a sixteenth of the range, is
ignored and recorded, and the next one is tried; an image can do without any. Most of the pixels decide, those of a
uniform border apart: a marker of lead at the end of the range decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.physical import DISPLAY_PERCENTILES, FEWEST_GREYS, apply_modality
from pipeline.dicom.decode.voi import apply_voi, next_voi, voi_step
from pipeline.errors import Rejected, RejectionCode

LARGEST = float(np.finfo(np.float32).max)
_SEVERAL = 16  # an image of so many values, or of so many greys without its window, must keep FEWEST_GREYS of them
_SAMPLED = 16384  # pixels of a frame that are looked at, and up to twice as many
_PART = 16  # every so many of them are tried first
_BULK = 0.99  # share of the pixels that decides
_MIDDLE = (5.0, 95.0)  # percentiles between which shown pixels span at least _SEVERAL of the 255 greys
_BORDER = 0.1  # share of the pixels from which their most frequent value is a border, or exposed without a body
_CRUSHED = 0.8  # share of the pixels that become one grey, although they span _QUARTER of the greys without window
_QUARTER = 64
_ADVICE = "Correct the element at its source and send the image again."


def check_values(stored: np.ndarray, attributes: InstanceAttributes) -> InstanceAttributes:
    """Refuse an image whose header takes its values beyond 32-bit floats, or makes different values equal.

    Returns the attributes, of a projection without the windows and VOI LUTs, in their order, that show too little of
    most frames.

    Args:
        stored: [F, H, W], as decoded; of a signal, nothing is checked here.
        attributes: of the image.

    Raises:
        Rejected: NON_FINITE, values of 3.4e38 or more; NO_CONTRAST or EMPTY_FOREGROUND, no frame of different values
            keeps them apart: rescale or Modality LUT leave one, or 99 % of the pixels, which had 16, have fewer
            than 8 left, or they are all declared padding.
    """
    if attributes.waveforms or stored.size == 0:
        return attributes
    lost: list[Rejected | None] = []
    dim: list[tuple[float, bool]] = []
    for frame, own in enumerate(_attributes_of_frames(attributes)):
        inside = stored[frame]
        low, high = inside.min(), inside.max()
        if own.padding_value is not None:
            inside = _not_padding(inside, own)
            if not inside.size:
                lost += [_all_padding(own)] if low < high else []
                continue
            low, high = inside.min(), inside.max()
        _check_finite(low, high, own)
        if low < high:
            seen = np.append(_sample(inside), [low, high])
            values = apply_modality(seen[None, None], own)[0][0, 0]
            lost.append(_find_lost_contrast(seen, values, own))
            if own.is_projection and voi_step(own) is not None:
                dim.append((_middle(_without_border(values, values)), _is_dim(values, own)))
    if lost and lost[0] is not None and all(lost):
        raise lost[0]
    later = next_voi(attributes) if _are_most_dim(dim) else None
    return attributes if later is None else check_values(stored, later)


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


def _find_lost_contrast(seen: np.ndarray, values: np.ndarray, attributes: InstanceAttributes) -> Rejected | None:
    """Return the rejection of a frame whose stored values `seen` become one grey, or most of several a few."""
    if _are_clearly_many(values):
        return None
    left = _bulk(values)
    if left >= FEWEST_GREYS or (values.min() < values.max() and _bulk(seen) < _SEVERAL):
        return None
    share = "all" if len(np.unique(values)) == left else f"{_BULK:.0%} of the"
    reached = "one grey" if left == 1 else f"{left} values, where at least {FEWEST_GREYS} are needed"
    cause = "The Modality LUT" if attributes.modality_lut is not None else _rescale(attributes)
    return Rejected(
        RejectionCode.NO_CONTRAST,
        f"{cause} takes {share} stored values, {seen.min():g} to {seen.max():g}, to {reached}. {_ADVICE}",
    )


def _is_dim(values: np.ndarray, attributes: InstanceAttributes) -> bool:
    """Return whether window or table leave too little of an image that shows more without them.

    Too little is one grey; fewer than 8 in most pixels; a span of fewer than 16 greys; or one grey in four fifths of
    the pixels, which without the window span a quarter of the range.
    """
    greys = np.rint(apply_voi(values[None, None], attributes)[0, 0] * 255)
    if greys.min() == greys.max():
        return True
    low, high = np.percentile(values, DISPLAY_PERCENTILES)
    if low == high:
        low, high = values.min(), values.max()
    without = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    greys, without = _without_border(greys, values), _without_border(without, values)
    if _bulk(greys) < FEWEST_GREYS and _bulk(without) >= _SEVERAL:
        return True
    if _middle(greys) < _SEVERAL <= _middle(without):
        return True
    seen, counts = np.unique(greys, return_counts=True)
    most = greys == seen[counts.argmax()]
    return bool(most.mean() > _CRUSHED and _middle(without[most]) >= _QUARTER)


def _are_most_dim(frames: list[tuple[float, bool]]) -> bool:
    """Return whether more than half of the frames are dim, given (spread of its values, is dim) of each.

    A frame without contrast, as before the contrast medium arrives, has nothing to show and does not count.
    """
    greatest = max((spread for spread, _ in frames), default=0.0)
    counted = [dim for spread, dim in frames if 4 * spread >= greatest]
    return 2 * sum(counted) > len(counted)


def _without_border(greys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the pixels of `greys` whose value is not that of a uniform border; all, where the rest is uniform too."""
    different, counts = np.unique(values, return_counts=True)
    if len(different) < 3 or counts.max() < _BORDER * values.size:
        return greys
    return greys[values != different[counts.argmax()]]


def _middle(values: np.ndarray) -> float:
    """Return how far 90 % of the values spread, from their 5th to their 95th percentile."""
    low, high = np.percentile(values, _MIDDLE)
    return float(high - low)


def _reached(low: np.generic, high: np.generic, attributes: InstanceAttributes) -> tuple[float, float]:
    """Return the ends after rescale, in double precision; a modality LUT has its own, which are 16 bits at most."""
    ends = float(low), float(high)
    if attributes.modality_lut is not None or not attributes.rescale:
        return ends
    slope, intercept = attributes.rescale[0]
    with np.errstate(over="ignore", invalid="ignore"):
        return tuple(float(np.float64(slope) * end + intercept) for end in ends)  # type: ignore[return-value]


def _sample(values: np.ndarray) -> np.ndarray:
    """Return at most 32768 of the values of a frame, evenly spread over it."""
    flat = values.ravel()
    return flat[:: max(1, flat.size // _SAMPLED)]


def _are_clearly_many(values: np.ndarray) -> bool:
    """Return whether every sixteenth value shows that no 7 hold 99 % of all: `_bulk` without its sort, or False.

    If 7 values held all but 1 %, at most that 1 %, sixteen times the share among every sixteenth, would differ there.
    """
    part = np.sort(values[::_PART])
    ends = np.flatnonzero(part[1:] != part[:-1]) + 1
    counts = np.sort(np.diff(ends, prepend=0, append=part.size))
    return bool(counts[: 1 - FEWEST_GREYS].sum() > (1 - _BULK) * values.size)


def _bulk(values: np.ndarray) -> int:
    """Return how many different values, the most frequent first, hold 99 % of them: a marker adds few or none."""
    counts = np.sort(np.unique(values, return_counts=True)[1])[::-1]
    return int(np.searchsorted(np.cumsum(counts), _BULK * values.size)) + 1


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
