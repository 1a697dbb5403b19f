"""The picture for the PACS: black, true proportions, the map on one scale, sides and numbers as the file gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from pipeline.detection.pixel_threshold import PixelHistogram
from pipeline.detection.rarity_scale import SHARES
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.export.described import SourceImage
from pipeline.stages.pacs.finding_picture import OUTLINE, SIDE, Pane, draw_finding
from pipeline.stages.pacs.image_sides import name_of, sides_of
from pipeline.stages.pacs.map_colours import MapColours

GREY = 90


@pytest.fixture
def colours() -> MapColours:
    """A scale whose ends are near 0.1 % and 10 % of 1: residuals of normals are even between 0 and 1."""
    histogram = PixelHistogram()
    histogram.add("one", np.arange(1, 100_001, dtype=np.float32) / 100_000)
    return MapColours.of_normals(histogram.quantiles(), 0.01)


def pane(rows: int = 60, columns: int = 40, high: float = 1.0, **more: Any) -> Pane:
    heatmap = np.full((rows, columns), 0.01, np.float32)
    heatmap[10:20, 15:35] = high
    return Pane(np.full((rows, columns), GREY, np.uint8), heatmap, "image 34", **more)


def box_of(mask: np.ndarray) -> tuple[int, int]:
    rows, columns = np.nonzero(mask)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_black_square_with_the_region_outlined_once(colours: MapColours) -> None:
    picture = draw_finding([pane()], "title", "details", colours, threshold=0.5)
    assert (picture.shape, picture.dtype) == ((SIDE, SIDE, 3), np.uint8)
    assert np.median(picture[:100]) == 0 and (picture == 255).all(axis=-1).mean() < 0.1
    drawn = (picture[: SIDE - 120] == OUTLINE).all(axis=-1)
    assert drawn[:, SIDE // 2 :].sum() == 0 < drawn.sum()
    height, width = box_of(drawn)
    assert width / height == pytest.approx(2, rel=0.05)  # 20 columns, 10 rows


def test_without_a_threshold_nothing_is_outlined(colours: MapColours) -> None:
    assert not (draw_finding([pane()], "t", "d", colours) == OUTLINE).all(axis=-1).any()


@pytest.mark.parametrize("methods", ["ssim_ae+gated_dae+ddpm", "gated_dae+gated_dae+conditional_ddpm+ssim_ae"])
def test_the_details_are_written_to_their_end(methods: str, colours: MapColours) -> None:
    """In two lines where one is too short, none of which is drawn over a slice."""
    details = f"p = 0.0156, score 1.234, flagged by capacity; {methods} on phantom-mr-brain, version 1"
    one, other, plain = (draw_finding([pane()], "t", words, colours) for words in (details, details + "2", ""))
    assert (one != other).any(), "the end was cut off"
    assert (one[108:] == plain[108:]).all()


def test_proportions_follow_the_distances(colours: MapColours) -> None:
    tall = pane(spacing_mm=(2.0, 1.0))  # rows are twice as far apart as columns
    drawn = (draw_finding([tall], "t", "d", colours, threshold=0.5)[: SIDE - 120] == OUTLINE).all(axis=-1)
    height, width = box_of(drawn)
    assert width / height == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_slice_is_drawn_twice(count: int, colours: MapColours) -> None:
    from scipy.ndimage import label

    picture = draw_finding([pane(high=0.01)] * count, "", "", colours, threshold=0.5)
    assert label((picture[110 : SIDE - 120] == GREY).all(axis=-1), np.ones((3, 3)))[1] >= 2 * count


def test_the_slice_is_cropped_to_the_body_and_kept_whole_without_one() -> None:
    one = pane(100, 100, 1.0)
    one.heatmap[:] = 0
    assert one.cropped().image.shape == (100, 100)
    one.heatmap[40:60, 10:60] = 1
    assert one.cropped().image.shape == (24, 54)  # two pixels on each side


def test_one_scale_for_all_maps_of_a_detector(colours: MapColours) -> None:
    assert colours.strength(np.array([colours.values[0], colours.values[-1]])) == pytest.approx([0, 1])
    middle = 1 - np.sqrt(SHARES[1] * SHARES[2])  # between 1 % and 0.1 %
    assert 1 / 3 < colours.strength(np.array([middle]))[0] < 2 / 3
    faint, strong = (draw_finding([pane(high=value)], "", "", colours)[300:700] for value in (0.5, 1.0))
    red, blue = (np.ptp(faint[..., channel]) for channel in (0, 2))
    assert red == blue and np.ptp(strong[..., 0]) > red  # a map below 10 % shows no colour, whatever its own maximum
    own = MapColours.of_study([pane(high=0.5).heatmap])
    assert own.strength(np.array([0.5]))[0] == 1 and "not calibrated" in own.legend


def test_equal_quantiles_still_give_a_scale() -> None:
    flat = MapColours((1.0, 1.0, 1.0), (0.0, 0.5, 1.0), ("a", "b"), "")
    assert flat.strength(np.array([0.5, 2.0])) == pytest.approx([0, 1])


@pytest.mark.parametrize(
    ("orientation", "declared", "sides"),
    [
        ((1, 0, 0, 0, 1, 0), None, ("R", "L", "A", "P")),
        ((0, 1, 0, 0, 0, -1), None, ("A", "P", "H", "F")),
        ((-1, 0, 0, 0, 1, 0), ["L", "P"], ("L", "R", "A", "P")),  # the cosines are the geometry
        ((0.8, 0.6, 0, 0, 0, -1), None, ("RA", "LP", "H", "F")),
        (None, ["L", "F"], ("R", "L", "H", "F")),
        (None, ["PL", "F"], ("AR", "PL", "H", "F")),
        (None, ["L", ""], ("", "", "", "")),
        (None, ["CR", "DI"], ("", "", "", "")),  # of an animal's leg
        (None, "", ("", "", "", "")),
    ],
)
def test_the_letters_of_the_edges(orientation: Any, declared: Any, sides: Any) -> None:
    ds = Dataset()
    if declared is not None:
        ds.PatientOrientation = declared
    attributes = InstanceAttributes(orientation=orientation and tuple(map(float, orientation)))
    assert sides_of(SourceImage(ds), attributes) == sides


@pytest.mark.parametrize(
    ("series", "number", "frames", "name"),
    [(3, 34, 1, "series 3, image 34"), (None, 34, 1, "image 34"), (3, 1, 40, "series 3, image 1, frame 8")],
)
def test_the_number_that_a_workstation_shows(series: Any, number: int, frames: int, name: str) -> None:
    ds = Dataset()
    ds.SeriesNumber, ds.InstanceNumber, ds.NumberOfFrames = series, number, frames
    assert name_of(SourceImage(ds, 7 if frames > 1 else 0)) == name
