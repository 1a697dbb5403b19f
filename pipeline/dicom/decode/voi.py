"""Map values of interest to [0, 1]: windows and VOI LUTs (PS3.3 C.11.2), all four functions with the same range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.dicom.decode.attributes import InstanceAttributes, LookupTable
from pipeline.types import Step


def next_voi(attributes: InstanceAttributes) -> InstanceAttributes | None:
    """Return the attributes without the VOI LUT or window that is in use, so that the next one is; None without any.

    Source: PS3.3 C.11.2.1.1 and C.11.2.1.2, several are alternatives.
    """
    if attributes.voi_luts:
        return replace(attributes, voi_luts=attributes.voi_luts[1:]).assuming("ignored:VOILUTSequence")
    if attributes.frame_windows or attributes.windows:
        later = () if attributes.frame_windows else attributes.windows[1:]
        return replace(attributes, windows=later, frame_windows=()).assuming("ignored:WindowCenter")
    return None


def apply_window(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Return float32 in [0, 1] : `values` mapped through one window.

    Source: PS3.3 C.11.2.1.2.1 (LINEAR, width 1 is a step), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT). That
    section forbids a LINEAR width below 1; it is treated as a step.
    """
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # e to a large number is infinite, and its inverse the 0 that is right
            return (1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))).astype(np.float32)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0).astype(np.float32)
    if width <= 1.0:
        return (values > centre - 0.5).astype(np.float32)
    return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0).astype(np.float32)


def apply_table(values: np.ndarray, table: LookupTable) -> np.ndarray:
    """Return float32 in [0, 1] : `values`, rounded to integers, mapped through a VOI LUT (PS3.3 C.11.2.1.1)."""
    return table.apply(np.rint(values)) / np.float32(2**table.bits - 1)


def voi_step(attributes: InstanceAttributes) -> Step | None:
    """Return the VOI transformation that the file requests, a LUT before a window, or None where it requests none."""
    if attributes.voi_luts:
        return Step("voi-lut", {"first": attributes.voi_luts[0].first, "bits": attributes.voi_luts[0].bits})
    windows = attributes.frame_windows or attributes.windows[:1]
    if not windows:
        return None
    return Step("voi-window", {"windows": [list(window) for window in windows], "function": attributes.voi_function})


def apply_voi(pixels: np.ndarray, attributes: InstanceAttributes) -> np.ndarray:
    """Return float32 [F, H, W] in [0, 1]; these attributes must have a `voi_step`."""
    if attributes.voi_luts:
        return apply_table(pixels, attributes.voi_luts[0])
    windows = attributes.frame_windows or attributes.windows[:1]
    result = np.empty(pixels.shape, dtype=np.float32)
    for frame in range(len(pixels)):
        centre, width = windows[frame % len(windows)]
        result[frame] = apply_window(pixels[frame], centre, width, attributes.voi_function)
    return result


def is_inverted(attributes: InstanceAttributes) -> bool:
    """Whether low values are displayed bright: MONOCHROME1, or Presentation LUT Shape INVERSE, which means the same."""
    return attributes.photometric == "MONOCHROME1" or attributes.presentation_lut_shape == "INVERSE"
