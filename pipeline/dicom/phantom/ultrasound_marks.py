"""Marks that an ultrasound scanner or its user burns into the pixels: text, a depth scale, and callipers.

None of them belongs to the patient. Text and scale lie mostly beside the fan; callipers lie on what somebody measured,
which makes them a confounder: a model that sees them knows that somebody saw something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.dicom.decode.luminance import weigh
from pipeline.dicom.phantom.drawing import Array
from pipeline.dicom.phantom.phantom_lesions import Lesion

Callipers = Literal["none", "some", "abnormal"]
SHARE = 0.3  # of the images that have callipers where `some` have them
COLOUR = (255, 235, 0)  # of marks on scanners that store colour
GREY = 245  # and on all others
CANVAS = 256  # least size at which marks are drawn; they are reduced for smaller pictures


@dataclass(frozen=True, slots=True)
class Measured:
    """The place that callipers measure: centre and half axes as for a lesion, and the sign at their ends."""

    x: float
    y: float
    a: float
    b: float
    angle: float
    sign: Literal["+", "x"]
    dotted: bool


def choose_callipers(rng: np.random.Generator, choice: Callipers, lesion: Lesion | None) -> Measured | None:
    """Draw whether an image has callipers and where: on its lesion, or on any place of a normal image."""
    u = rng.random(8).tolist()
    if not {"none": False, "some": u[0] < SHARE, "abnormal": lesion is not None}[choice]:
        return None
    x, y, a, b = 0.9 * u[1] - 0.45, 0.7 * u[2] - 0.45, 0.10 + 0.14 * u[3], 0.08 + 0.10 * u[4]
    angle = np.pi * u[5]
    if lesion is not None:
        x, y, a, b, angle = lesion.x, lesion.y, 1.1 * lesion.a, 1.1 * lesion.b, lesion.angle
    return Measured(x, y, a, b, angle, "+" if u[6] < 0.5 else "x", u[7] < 0.6)


def draw_marks(size: int, model: str, depth_mm: int, measured: Measured | None) -> Array:
    """Return the coverage [size, size] in [0, 1] of text, depth scale and callipers."""
    edge = max(size, CANVAS)
    canvas = Image.new("L", (edge, edge))
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default_imagefont()
    pen.text((3, 2), model.upper(), fill=255, font=font)
    pen.text((edge - 45, 2), f"{depth_mm} MM", fill=255, font=font)
    _scale(pen, edge)
    if measured is not None:
        _callipers(pen, edge, measured)
        pen.text((3, edge - 13), f"D1 {measured.a * depth_mm:.0f} MM", fill=255, font=font)
    small = canvas if edge == size else canvas.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def burn_in(stored: Array, marks: Array, colour: bool) -> tuple[Array, Array | None]:
    """Return the stored luminance [F, S, S] with marks burned in, and the RGB [F, S, S, 3] that it was made from."""
    if not colour:
        return np.rint(stored + marks * (GREY - stored.astype(np.float32))).astype(stored.dtype), None
    planes = [stored + marks * (level - stored.astype(np.float32)) for level in COLOUR]
    rgb = np.rint(np.stack(planes, axis=-1)).astype(stored.dtype)
    return weigh(rgb), rgb


def _scale(pen: ImageDraw.ImageDraw, edge: int) -> None:
    """Draw ticks at the right border, every second one longer."""
    for number in range(9):
        y = round(edge * (0.09 + 0.108 * number))
        pen.line((edge - (9 if number % 2 else 5), y, edge - 2, y), fill=255)


def _callipers(pen: ImageDraw.ImageDraw, edge: int, measured: Measured) -> None:
    """Draw a sign at the four ends of both axes, and dots along them."""
    arm, width, half = max(3, round(edge / 70)), max(1, round(edge / 400)), edge / 2
    cosine, sine = np.cos(measured.angle), np.sin(measured.angle)
    for along, (dx, dy) in ((measured.a, (cosine, sine)), (measured.b, (-sine, cosine))):
        centre, reach = np.array([measured.x + 1, measured.y + 1]) * half, np.array([dx, dy]) * along * half
        for end in (centre - reach, centre + reach):
            _sign(pen, end, arm, width, measured.sign)
        steps = round(2 * along * half / max(4.0, edge / 60))
        for place in np.linspace(-1, 1, steps + 1)[1:-1] if measured.dotted else ():
            pen.point([(float(v[0]), float(v[1])) for v in _square(centre + place * reach, width)], fill=255)


def _square(place: np.ndarray, width: int) -> list[np.ndarray]:
    return [place + np.array([i, j]) for i in range(width) for j in range(width)]


def _sign(pen: ImageDraw.ImageDraw, place: np.ndarray, arm: int, width: int, sign: str) -> None:
    x, y = (round(float(v)) for v in place)
    turns = ((arm, 0), (0, arm)) if sign == "+" else ((arm, arm), (arm, -arm))
    for dx, dy in turns:
        pen.line((x - dx, y - dy, x + dx, y + dy), fill=255, width=width)
