"""Names of an image and of its edges, as on a workstation: number, and the letters L, R, A, P, H and F."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.multival import MultiValue

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.export.described import SourceImage

# Positive and negative direction of x, y and z in the patient (PS3.3 C.7.6.2.1.1).
_AXES = ("LR", "PA", "HF")
_OPPOSITE = dict(zip("LRPAHF", "RLAPFH", strict=True))
LEAST_PART = 0.4  # of a direction, for a second letter: 24 degrees


def name_of(image: SourceImage) -> str:
    """Return `series 3, image 34` or `image 34, frame 2`, as far as the file has numbers."""
    numbers = (("series", image.dataset.get("SeriesNumber")), ("image", image.dataset.get("InstanceNumber")))
    parts = [f"{name} {number}" for name, number in numbers if number is not None]
    parts += [f"frame {image.frame + 1}"] if image.several else []
    return ", ".join(parts)


def sides_of(image: SourceImage, attributes: InstanceAttributes) -> tuple[str, str, str, str]:
    """Return the letters of the left, right, top and bottom edge; "" where the file does not give them.

    Args:
        image: the original.
        attributes: of its frame.

    Source: PS3.3 C.7.6.1.1.1 (Patient Orientation: of the rows, to the right, and of the columns, downwards) and
    C.7.6.2.1.1 (direction cosines).
    """
    cosines = next(iter(attributes.orientations), attributes.orientation)
    if cosines is not None:
        right, bottom = _letters(cosines[:3]), _letters(cosines[3:])
    else:
        right, bottom = _declared(image.dataset.get("PatientOrientation"))
    return _turned(right), right, _turned(bottom), bottom


def _letters(direction: Sequence[float]) -> str:
    """Return one letter, or two for an oblique direction, the larger part first."""
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    large = [axis for axis in order[:2] if abs(direction[axis]) >= LEAST_PART] or order[:1]
    return "".join(_AXES[axis][int(direction[axis] < 0)] for axis in large)


def _declared(value: object) -> tuple[str, str]:
    """Return both directions of PatientOrientation, or "" twice: one alone, or other letters, say nothing certain."""
    texts = [str(text).upper() for text in value] if isinstance(value, MultiValue | list | tuple) else []
    if len(texts) != 2 or not all(text and set(text) <= _OPPOSITE.keys() for text in texts):
        return "", ""
    return texts[0], texts[1]


def _turned(letters: str) -> str:
    return "".join(_OPPOSITE[letter] for letter in letters)
