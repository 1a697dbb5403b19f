"""The colours of a heatmap: a share of normal pixels on a logarithmic scale, the same for every image."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.detection.pixel_threshold import PixelHistogram
from pipeline.detection.rarity_scale import position
from pipeline.review.heat_scale import colour_levels, describe_scale
from pipeline.review.slice_maps import SliceMaps

NORMALS = np.linspace(0, 1, 100_001, dtype=np.float32)  # a share a of them is above 1 - a


def maps_of(values: list[float], top: float = 1.0) -> SliceMaps:
    """Heatmap of these values, stored as integers like a real one."""
    step, first = 2e-5, -0.1
    heat = np.rint((np.array([values]) - first) / step).astype(np.uint16)
    return SliceMaps(heat, step, first, top, None, 1.0, 0.0, True, 1)


def test_colours_are_shares_of_normal_pixels() -> None:
    histogram = PixelHistogram()
    histogram.add("normal", NORMALS)
    values = [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.55]
    levels = colour_levels(maps_of(values), histogram.quantiles())[0]
    expected = [0, 0, 0, 255 * np.log10(2) / 3, 85, 170, 255, 0]
    # A threshold is up to 2^-10 too high, which counts most where few normal pixels are left.
    np.testing.assert_allclose(levels[:5], expected[:5], atol=3)
    assert 85 < levels[5] <= 170 + 1
    assert levels[6] > levels[5]


def test_an_image_of_small_values_stays_dark_and_one_of_large_values_saturates() -> None:
    histogram = PixelHistogram()
    histogram.add("normal", NORMALS / 4)
    quantiles = histogram.quantiles()
    assert colour_levels(maps_of([0.1, 0.2], top=0.2), quantiles).max() == 0
    assert colour_levels(maps_of([0.4, 0.5], top=0.5), quantiles).tolist() == [[255, 255]], "no height is sent"


def test_without_quantiles_the_scale_is_the_images_own_and_says_so() -> None:
    assert colour_levels(maps_of([0.1, 0.4], top=0.4), None).tolist() == [[0, 255]]
    assert describe_scale(None) == {"common": False, "ticks": []}


def test_the_legend_names_shares_at_even_places() -> None:
    assert [position(share) for share in (0.1, 0.01, 0.001, 0.0001)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
