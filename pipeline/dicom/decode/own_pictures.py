"""Stamp in the pixels of the pictures that Nightread makes: it outlives a header that was replaced as a whole.

64 bits in a fixed order, each 4 pixels long and 8 across, black or almost black, are in a corner at the top and at
the bottom, and wherever the picture is black. So a copy is recognised that was inverted, made brighter, given other
bits, mirrored, turned by right angles, padded, or cropped at its margins, and one that was compressed with loss if its
header says so. A copy that was scaled, or whose darkest greys were cut off, is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

LEVEL = 4  # of 255: hardly to be seen beside black
_PITCH, _SMALL_PITCH = (4, 8), (1, 2)  # pixels of one bit, along and across; the second in small pictures
_EVERY = 32  # pixels between the places where a stamp is tried
_BITS = np.unpackbits(np.frombuffer(hashlib.sha256(b"nightread picture").digest()[:8], np.uint8))


def _steps(bits: np.ndarray) -> bytes:
    """Return where neighbours in a line differ, one byte a place."""
    return (bits[..., 1:] != bits[..., :-1]).tobytes()


# Inversion and a change of brightness leave these as they are, a mirror turns the first into the second.
_STEPS = (_steps(_BITS), _steps(_BITS[::-1]))


def stamp(picture: np.ndarray) -> np.ndarray:
    """Return a copy of a picture, uint8 [H, W, 3], with stamps; one smaller than a stamp is returned as it is."""
    stamped = np.array(picture, dtype=np.uint8)
    long, across = _SMALL_PITCH if _is_small(stamped.shape[:2]) else _PITCH
    mark = np.tile(np.repeat(_BITS * LEVEL, long), (across, 1))[..., None]
    high, wide = mark.shape[:2]
    if stamped.shape[0] < high or stamped.shape[1] < wide:
        return stamped
    for top in range(0, stamped.shape[0] - high + 1, _EVERY):
        for left in range(0, stamped.shape[1] - wide + 1, wide):
            place = stamped[top : top + high, left : left + wide]
            if not place.any():
                place[:] = mark
    stamped[-high:, :wide] = stamped[:high, -wide:] = mark
    return stamped


def _is_small(shape: tuple[int, ...]) -> bool:
    return min(shape) < len(_BITS) * _PITCH[0]


def is_stamped(frame: np.ndarray, lossy: bool = False) -> bool:
    """Return whether a decoded frame [H, W], whose values are luminances, has a stamp; `lossy`: its levels vary."""
    pitches = (_PITCH, _SMALL_PITCH) if _is_small(frame.shape) else (_PITCH,)
    lines = (one for pitch in pitches for one in _lines(frame, *pitch, lossy))
    return any(any(map(_have_stamp, _levels(one) if lossy else (one,))) for one in lines)


def _lines(frame: np.ndarray, long: int, across: int, lossy: bool) -> Iterator[np.ndarray]:
    """Yield parts of rows and columns: of lines so far apart that one meets each stamp, one pixel of each bit.

    Two pixels on, another part of each bit is met: one of the two is not at its rim, where a lossy copy is blurred.
    """
    for start in (0, long // 2) if lossy else (0,):
        shifted = frame[start:, start:]
        both = shifted[::across, ::long], shifted[::long, ::across].T
        yield from (lines for lines in both if lines.shape[1] >= len(_BITS))


def _levels(lines: np.ndarray) -> Iterator[np.ndarray]:
    """Yield lines in two levels, told apart next to the darkest and next to the brightest value."""
    low, high = float(lines.min()), float(lines.max())
    half = (high - low) * LEVEL / 510
    yield lines < low + half
    yield lines > high - half


def _have_stamp(lines: np.ndarray) -> bool:
    steps = _steps(lines)
    return any(mark in steps for mark in _STEPS)
