"""The way back to the native grid, and the JSON that a model artefact carries."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.data.images.body import BodyConfig
from pipeline.data.images.intensity import AnyRange
from pipeline.data.images.normalise import (
    CTWindow,
    FixedRange,
    MRMedian,
    MRPercentile,
    Normaliser,
    Plane,
    RobustRange,
    parse_normaliser,
)
from pipeline.errors import ArtefactError, ConfigError
from pipeline.types import Step

FRAME = BodyConfig(method="frame")


@given(st.integers(0, 2**32 - 1), st.integers(1, 64), st.booleans(), st.floats(-1000, 1000), st.floats(1, 4000))
@settings(max_examples=60, deadline=None)
def test_exact_where_nothing_is_resampled(seed: int, edge: int, tall: bool, centre: float, width: float) -> None:
    shape = (64, edge) if tall else (edge, 64)
    pixels = np.random.default_rng(seed).integers(-1500, 1500, shape).astype(np.float32)
    normaliser = Normaliser(CTWindow(centre=centre, width=width, body=FRAME))
    item = normaliser.apply(Plane(pixels))
    clipped = np.clip(pixels, centre - width / 2, centre + width / 2)
    back = normaliser.invert(item.image[0], item.step)
    assert back.shape == shape
    np.testing.assert_allclose(back, clipped, atol=width * 1e-6 + 1e-3)
    if width > 100:  # stored integers inside the window come back as themselves
        inside = clipped == pixels
        np.testing.assert_array_equal(np.rint(back[inside]), pixels[inside])


@given(st.integers(0, 2**32 - 1), st.integers(16, 200), st.integers(16, 200))
@settings(max_examples=40, deadline=None)
def test_smooth_images_survive_resampling(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(height, width)), max(height, width) / 8, mode="nearest")
    pixels = (100 + 900 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)
    for config in (RobustRange(low=0, high=100), FixedRange(low=0, high=2000, body=FRAME)):
        normaliser = Normaliser(config)
        item = normaliser.apply(Plane(pixels))
        back = normaliser.invert(item.image[0], item.step)
        assert back.shape == pixels.shape
        assert np.abs(back - pixels).mean() < 0.03 * 900


def test_mr_comes_back_in_physical_units(head: Callable[..., Plane]) -> None:
    plane = head(gain=3.0)
    normaliser = Normaliser(MRPercentile(image_size=96))
    item = normaliser.series([plane])[0]
    low, high = item.step.params["low"], item.step.params["high"]
    np.testing.assert_allclose(
        normaliser.invert(item.image[0], item.step), np.clip(plane.pixels, low, high), atol=1e-3 * (high - low)
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 777), (333, 2), (64, 64), (97, 211), (31, 30)])
def test_maps_come_back_on_exactly_the_native_grid(shape: tuple[int, int]) -> None:
    normaliser = Normaliser(FixedRange(body=FRAME))
    item = normaliser.apply(Plane(np.zeros(shape, np.float32)))
    grid = np.random.default_rng(0).exponential(50, (64, 64)).astype(np.float32)
    native = normaliser.to_native(grid, item.step)
    assert native.shape == shape
    assert native.dtype == np.float32
    assert native.min() >= grid.min()
    assert native.max() <= grid.max() * (1 + 1e-6)
    assert normaliser.mask_to_native(grid > 1e9, item.step).sum() == 0


def test_a_map_is_interpolated_linearly_and_its_values_are_untouched() -> None:
    normaliser = Normaliser(FixedRange(image_size=32, body=FRAME))
    item = normaliser.apply(Plane(np.zeros((64, 64), np.float32)))
    ramp = np.tile(1000.0 * np.arange(32, dtype=np.float32), (32, 1))
    native = normaliser.to_native(ramp, item.step)
    # Native pixel centre j + 0.5 lies at grid coordinate (j + 0.5) / 2 - 0.5; the ends are clamped.
    expected = np.clip((np.arange(64) + 0.5) / 2 - 0.5, 0, 31) * 1000
    np.testing.assert_allclose(native[7], expected, rtol=1e-5)


def test_a_lesion_comes_back_where_it_was() -> None:
    normaliser = Normaliser(FixedRange(body=FRAME))
    lesion = np.zeros((240, 180), np.float32)
    lesion[150:170, 40:70] = 255
    item = normaliser.apply(Plane(lesion))
    mask = normaliser.mask_to_native(item.image[0] > 0, item.step)
    truth = lesion > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.85
    centre = ndimage.center_of_mass(normaliser.to_native(item.image[0] + 1, item.step))
    assert centre == (pytest.approx(159.5, abs=0.1), pytest.approx(54.5, abs=0.1))


@pytest.mark.parametrize(
    "config",
    [
        CTWindow(centre=35.5, width=80, image_size=32),
        MRPercentile(low=1, high=99, body=BodyConfig(method="otsu", otsu_factor=0.7)),
        MRMedian(span=3.5),
        RobustRange(image_size=256),
        FixedRange(low=-3, high=12.25, body=FRAME),
    ],
    ids=lambda config: config.kind,
)
def test_json_round_trip(config: AnyRange, head: Callable[..., Plane]) -> None:
    normaliser = Normaliser(config)
    again = Normaliser.from_json(json.loads(json.dumps(normaliser.to_json())))
    assert again.config == config
    assert again.fingerprint() == normaliser.fingerprint()
    one, other = normaliser.series([head(gain=0.04)])[0], again.series([head(gain=0.04)])[0]
    np.testing.assert_array_equal(one.image, other.image)
    step = json.loads(json.dumps(one.step.to_json()))
    again_step = Step(step["name"], step["params"])
    np.testing.assert_array_equal(normaliser.invert(one.image[0], one.step), again.invert(one.image[0], again_step))


def test_fingerprints_differ_with_every_field() -> None:
    configs = [CTWindow(), CTWindow(width=80), CTWindow(image_size=65), CTWindow(body=FRAME), FixedRange()]
    assert len({Normaliser(config).fingerprint() for config in configs}) == len(configs)


def test_another_version_and_wrong_fields_are_refused() -> None:
    values = Normaliser(CTWindow()).to_json()
    with pytest.raises(ArtefactError, match="version 99"):
        Normaliser.from_json({**values, "version": 99})
    with pytest.raises(ConfigError, match="window"):
        parse_normaliser({"kind": "window"})
    with pytest.raises(ConfigError, match="centr"):
        parse_normaliser({"kind": "ct_window", "centr": 3})
    with pytest.raises(ConfigError, match=r"low\b.*\b99\b.*high\b.*\b1\b"):
        parse_normaliser({"kind": "mr_percentile", "low": 99, "high": 1})
    for size in (31, 257, 0):
        with pytest.raises(ConfigError, match="image_size"):
            parse_normaliser({"kind": "range", "image_size": size})
    with pytest.raises(ConfigError, match="kind"):
        parse_normaliser({})
