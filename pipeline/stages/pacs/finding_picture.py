"""Picture of a finding for a workstation: black, the most unusual slices with outline and anomaly map, one header.

It is square, 1024 pixels a side, with letters of at least 24 pixels, so that it is readable in a quarter of a screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.stages.pacs.map_colours import MapColours

SIDE, HEADER, FOOTER, GAP = 1024, 108, 120, 6
TITLE, TEXT, SMALLEST = 36, 26, 22  # pixels
MARGIN = 0.04  # of the body's extent, around it
WHITE, GREY, AMBER = (255, 255, 255), (190, 190, 190), (255, 191, 0)
OUTLINE = (0, 229, 255)
BARS_MM = (100, 50, 20, 10, 5, 2)
WARNING = "RESEARCH, NOT FOR DIAGNOSIS"


@dataclass(frozen=True, slots=True)
class Pane:
    """One slice to show. It holds no identifier.

    Attributes:
        image: uint8 [H, W], ready for display.
        heatmap: float [H, W], 0 outside the body.
        name: how a workstation names the slice, such as `image 34`.
        sides: letters of the (left, right, top, bottom) edge (PS3.3 C.7.6.1.1.1), "" where unknown.
        spacing_mm: (row, column) distance; None where unknown.
        at_detector: the distance is measured at the detector and not in the patient.
    """

    image: np.ndarray
    heatmap: np.ndarray
    name: str
    sides: tuple[str, str, str, str] = ("", "", "", "")
    spacing_mm: tuple[float, float] | None = None
    at_detector: bool = False

    @property
    def size_mm(self) -> tuple[float, float]:
        """(height, width), in pixels where the distance is unknown."""
        row, column = self.spacing_mm or (1.0, 1.0)
        return self.image.shape[0] * row, self.image.shape[1] * column

    def cropped(self) -> Pane:
        """Return the part around the body; the whole slice where the map does not show where the body is."""
        rows, columns = np.nonzero(self.heatmap)
        if not len(rows):
            return self
        part = tuple(_range(where, edge) for where, edge in zip((rows, columns), self.heatmap.shape, strict=True))
        return replace(self, image=self.image[part], heatmap=self.heatmap[part])


def _range(places: np.ndarray, edge: int) -> slice:
    low, high = int(places.min()), int(places.max()) + 1
    margin = max(round(MARGIN * (high - low)), 2)
    return slice(max(low - margin, 0), min(high + margin, edge))


def draw_finding(
    panes: Sequence[Pane], title: str, details: str, colours: MapColours, threshold: float | None = None
) -> np.ndarray:
    """Return uint8 [1024, 1024, 3]: each slice with its outline, and with its anomaly map.

    Args:
        panes: the most unusual slices, at least one.
        title: how unusual the study is, in words.
        details: score, p-value, rule and model; they are broken at a semicolon where one line is too short for them.
        colours: colours of the map, with their legend.
        threshold: heatmap values above it are outlined; None draws no outline.
    """
    panes = [pane.cropped() for pane in panes]
    canvas = Image.new("RGB", (SIDE, SIDE))
    draw = ImageDraw.Draw(canvas)
    _write(draw, (12, 10), title, TITLE, WHITE, SIDE - 24)
    for y, line, size in _detail_lines(draw, details):
        _write(draw, (12, y), line, size, GREY, SIDE - 24)
    for pane, (outlined, mapped) in zip(panes, _boxes(panes), strict=True):
        edges = _fit_in(pane, outlined)
        canvas.paste(_outlined(pane, edges[2:], threshold), edges[:2])
        _annotate(draw, pane, edges)
        edges = _fit_in(pane, mapped)
        canvas.paste(_mapped(pane, edges[2:], colours), edges[:2])
        _scale_bar(draw, pane, edges)
    _footer(canvas, draw, colours, threshold)
    return np.asarray(canvas)


def _boxes(panes: Sequence[Pane]) -> list[tuple[tuple[int, int, int, int], tuple[int, int, int, int]]]:
    """Return two (x, y, width, height) per slice: side by side, or one above the other where that is larger."""
    count, height = len(panes), SIDE - HEADER - FOOTER
    across = (SIDE // 2, height // count)  # a row per slice
    down = (SIDE // count, height // 2)  # a column per slice
    if _scale(panes[0], across) >= _scale(panes[0], down):
        width, height = across
        return [
            ((0, HEADER + i * height, width, height), (width, HEADER + i * height, width, height)) for i in range(count)
        ]
    width, height = down
    return [((i * width, HEADER, width, height), (i * width, HEADER + height, width, height)) for i in range(count)]


def _scale(pane: Pane, box: tuple[int, int]) -> float:
    height, width = pane.size_mm
    return min((box[0] - GAP) / width, (box[1] - GAP) / height)


def _fit_in(pane: Pane, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return (x, y, width, height) of the slice in its box, centred, with its true proportions."""
    scale = _scale(pane, box[2:])
    height, width = (max(int(edge * scale), 1) for edge in pane.size_mm)
    return box[0] + (box[2] - width) // 2, box[1] + (box[3] - height) // 2, width, height


def _outlined(pane: Pane, size: tuple[int, int], threshold: float | None) -> Image.Image:
    picture = _enlarged(pane.image, size)
    if threshold is None:
        return picture
    above = _values(pane, size) > threshold
    pixels = np.array(picture)
    pixels[_edge(above)] = OUTLINE
    return Image.fromarray(pixels)


def _mapped(pane: Pane, size: tuple[int, int], colours: MapColours) -> Image.Image:
    strength = colours.strength(_values(pane, size))
    opacity = np.clip(1.5 * strength, 0.0, 0.85)[..., None]
    pixels = (1 - opacity) * np.asarray(_enlarged(pane.image, size), float) + opacity * colours.colour(strength)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _enlarged(image: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC).convert("RGB")


def _values(pane: Pane, size: tuple[int, int]) -> np.ndarray:
    values = Image.fromarray(np.asarray(pane.heatmap, dtype=np.float32))
    return np.asarray(values.resize(size, Image.Resampling.BILINEAR))


def _edge(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask within two pixels of its rim, so that the line covers nothing outside it."""
    from scipy.ndimage import binary_erosion

    return mask & ~binary_erosion(mask, iterations=2, border_value=1)


def _annotate(draw: ImageDraw.ImageDraw, pane: Pane, edges: tuple[int, int, int, int]) -> None:
    """Write the name of the slice and the letters of its edges onto it."""
    x, y, width, height = edges
    _write(draw, (x + 6, y + 4), pane.name, TEXT, WHITE, width - 12)
    left, right, top, bottom = pane.sides
    middle, across = y + height // 2, x + width // 2
    places = [(left, (x + 6, middle), "lm"), (right, (x + width - 6, middle), "rm")]
    places += [(top, (across, y + 40), "mt"), (bottom, (across, y + height - 6), "mb")]
    for letter, place, anchor in places:
        draw.text(place, letter, WHITE, ImageFont.load_default(TEXT + 4), anchor, stroke_width=2, stroke_fill=0)


def _scale_bar(draw: ImageDraw.ImageDraw, pane: Pane, edges: tuple[int, int, int, int]) -> None:
    x, y, width, height = edges
    if pane.spacing_mm is None:
        return
    across_mm = pane.size_mm[1]
    length = next((bar for bar in BARS_MM if bar <= 0.4 * across_mm), BARS_MM[-1])
    end, low = x + 8 + round(width * length / across_mm), y + height - 10
    draw.rectangle((x + 7, low - 3, end + 1, low + 2), fill=(0, 0, 0))
    draw.line((x + 8, low, end, low), WHITE, 3)
    name = f"{length} mm at the detector" if pane.at_detector else f"{length} mm"
    _write(draw, (x + 8, low - 38), name, TEXT, WHITE, width - 16)


def _footer(canvas: Image.Image, draw: ImageDraw.ImageDraw, colours: MapColours, threshold: float | None) -> None:
    """Draw the colour bar with its legend, the meaning of the outline, and the warning."""
    top, left, width = SIDE - FOOTER + 10, 12, 420
    bar = np.rint(colours.colour(np.linspace(0, 1, width))).astype(np.uint8)
    canvas.paste(Image.fromarray(np.tile(bar, (20, 1, 1))), (left, top))
    for share, name in colours.ticks:
        anchor = "lt" if share == 0 else "rt" if share == 1 else "mt"
        draw.text((left + share * width, top + 26), name, GREY, ImageFont.load_default(24), anchor)
    _write(draw, (left, top + 60), colours.legend, 24, GREY, 560)
    if threshold is not None:
        draw.line((left + 470, top + 10, left + 500, top + 10), OUTLINE, 3)
        _write(draw, (left + 510, top - 4), colours.outline, 24, GREY, SIDE - left - 530)
    draw.text((SIDE - 12, top + 74), WARNING, AMBER, ImageFont.load_default(28), "rm")


def _detail_lines(draw: ImageDraw.ImageDraw, details: str) -> list[tuple[int, str, int]]:
    """Return (y, words, size) of one line where it is wide enough, else of two."""
    first, _, second = details.partition("; ")
    if not second or draw.textlength(details, ImageFont.load_default(SMALLEST)) <= SIDE - 24:
        return [(62, details, TEXT)]
    return [(50, first, 24), (78, second, 24)]


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], words: str, size: int, colour: tuple[int, int, int], width: int
) -> None:
    """Write one line, smaller if it is too long for the width, and shortened if it would become illegible."""
    while size > SMALLEST and draw.textlength(words, ImageFont.load_default(size)) > width:
        size -= 1
    font = ImageFont.load_default(size)
    while len(words) > 4 and draw.textlength(words, font) > width:
        words = words[:-4] + "..."
    draw.text(place, words, colour, font, stroke_width=2, stroke_fill=0)
