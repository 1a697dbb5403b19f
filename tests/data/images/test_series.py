"""Ranges, their statistics, and the independence of a slice from everything outside its series."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.images.body import BodyConfig
from pipeline.data.images.intensity import SAMPLE, AnyRange
from pipeline.data.images.normalise import (
    CTWindow,
    FixedRange,
    MRMedian,
    MRPercentile,
    Normaliser,
    Plane,
    RobustRange,
    planes,
)
from pipeline.errors import ConfigError

CONFIGS = [
    CTWindow(),
    MRPercentile(),
    MRMedian(),
    RobustRange(),
    FixedRange(),
    FixedRange(body=BodyConfig(method="otsu")),
]


def name(config: AnyRange) -> str:
    return f"{config.kind}-{config.body.method}"


def test_ct_window_golden() -> None:
    # Centre 40, width 400: -160 HU becomes -1, 40 HU 0, 140 HU 0.5; beyond is clipped.
    pixels = np.array([[-1000, -160, -60, 40, 140, 240, 3000]], np.float32)
    item = Normaliser(CTWindow(image_size=32)).apply(Plane(np.kron(pixels, np.ones((32, 1)))))
    wide = Normaliser(CTWindow(image_size=32)).invert(item.image[0], item.step)
    assert item.image.shape == (1, 32, 32)
    np.testing.assert_allclose(wide[16], [-160, -160, -60, 40, 140, 240, 240], atol=60)
    exact = Normaliser(CTWindow(image_size=32)).apply(Plane(np.tile(np.linspace(-360, 440, 32), (32, 1))))
    expected = np.clip((np.linspace(-360, 440, 32) - 40) / 200, -1, 1)
    np.testing.assert_allclose(exact.image[0, 0], expected, atol=1e-6)


def test_fixed_range_golden() -> None:
    pixels = np.zeros((32, 32), np.uint8)
    pixels[0, :4] = 0, 51, 127, 255
    image = Normaliser(FixedRange(image_size=32)).apply(Plane(pixels)).image[0]
    np.testing.assert_allclose(image[0, :4], [-1, -0.6, 127 / 127.5 - 1, 1], atol=1e-6)


def test_mr_percentiles_are_those_of_the_foreground_of_the_whole_series(head: Callable[..., Plane]) -> None:
    slices = [head(seed, gain) for seed, gain in enumerate((1.0, 1.1, 0.9))]
    estimated = Normaliser(MRPercentile()).estimate(slices)
    assert estimated is not None
    values = np.concatenate([plane.pixels.ravel() for plane in slices])
    foreground = values[values > estimated.cut]
    assert 20 < estimated.cut < 200  # between noise (4) and tissue (190 to 440)
    low, high = np.percentile(foreground, [0.5, 99.5])
    assert (estimated.low, estimated.high) == (pytest.approx(low), pytest.approx(high))


def test_a_quarter_of_the_range_is_the_median_of_the_foreground_of_the_whole_series(head: Callable[..., Plane]) -> None:
    slices = [head(seed, gain) for seed, gain in enumerate((1.0, 1.1, 0.9))]
    estimated = Normaliser(MRMedian()).estimate(slices)
    values = np.concatenate([plane.pixels.ravel() for plane in slices])
    assert (estimated.low, estimated.high) == (0, pytest.approx(4 * np.median(values[values > estimated.cut])))
    assert Normaliser(MRMedian(span=2)).estimate(slices).high == pytest.approx(estimated.high / 2)


def test_a_large_bright_lesion_moves_the_median_less_than_the_percentiles(head: Callable[..., Plane]) -> None:
    plain = head()
    tissue = plain.pixels > 100
    lesion = tissue & (np.cumsum(tissue.ravel()).reshape(tissue.shape) < 0.2 * tissue.sum())  # a fifth of the head
    ill = Plane(np.where(lesion, 2 * plain.pixels, plain.pixels))
    moved = {}
    for config in (MRMedian(), MRPercentile()):
        before, after = (Normaliser(config).estimate([plane]).high for plane in (plain, ill))
        moved[config.kind] = after / before - 1
    assert moved["mr_median"] < 0.1 < 0.4 < moved["mr_percentile"]


@pytest.mark.parametrize("config", [MRPercentile(), MRMedian()], ids=name)
@pytest.mark.parametrize("gain", [1e-3, 7.0, 1e4])
def test_mr_scale_of_the_scanner_does_not_matter(head: Callable[..., Plane], gain: float, config: AnyRange) -> None:
    normaliser = Normaliser(config)
    plain, scaled = normaliser.series([head()])[0], normaliser.series([head(gain=gain)])[0]
    np.testing.assert_allclose(plain.image, scaled.image, atol=2e-5)
    np.testing.assert_array_equal(plain.body, scaled.body)


def test_projection_range_ignores_padding_and_other_images() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(100, 200, (64, 64)).astype(np.float32)
    valid = np.ones((64, 64), bool)
    valid[:20] = False
    padded = np.where(valid, pixels, 65535).astype(np.float32)
    other = Plane(rng.uniform(0, 4000, (64, 64)).astype(np.float32))
    alone = Normaliser(RobustRange()).series([Plane(padded, valid)])[0]
    low, high = np.percentile(pixels[20:], [1, 99])
    assert alone.step.params["low"] == pytest.approx(low)
    assert alone.step.params["high"] == pytest.approx(high)
    assert (alone.image[0, :20] == -1).all()
    beside = Normaliser(RobustRange()).series([other, Plane(padded, valid)])[1]
    np.testing.assert_array_equal(alone.image, beside.image)


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_order_of_slices_does_not_matter(config: AnyRange, head: Callable[..., Plane]) -> None:
    slices = [head(seed, 1 + seed / 10) for seed in range(5)]
    forward = Normaliser(config).series(slices)
    backward = Normaliser(config).series(slices[::-1])[::-1]
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.body, other.body)
        assert one.step == other.step


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_a_subset_with_the_statistics_of_its_series_is_the_same(config: AnyRange, head: Callable[..., Plane]) -> None:
    slices = [head(seed, 1 + seed / 10) for seed in range(5)]
    normaliser = Normaliser(config)
    whole, estimated = normaliser.series(slices), normaliser.estimate(slices)
    for index in (3, 1):
        np.testing.assert_array_equal(normaliser.apply(slices[index], estimated).image, whole[index].image)


def test_needs_series_says_when_one_slice_is_not_enough(head: Callable[..., Plane]) -> None:
    assert [Normaliser(config).needs_series for config in CONFIGS] == [False, True, True, False, False, True]
    with pytest.raises(ConfigError, match="whole series"):
        Normaliser(MRPercentile()).apply(head())


def test_a_long_series_is_thinned_and_streams(head: Callable[..., Plane]) -> None:
    slices = [head(seed % 3, 1.0, size=256, radius=90) for seed in range(24)]
    total = sum(plane.pixels.size for plane in slices)
    assert total > 2 * SAMPLE
    normaliser = Normaliser(MRPercentile())
    streamed = normaliser.estimate(iter(slices), total)
    assert streamed == normaliser.estimate(slices)
    values = np.concatenate([plane.pixels.ravel() for plane in slices])
    low, high = np.percentile(values[values > streamed.cut], [0.5, 99.5])
    spread = high - low
    assert abs(streamed.low - low) < 0.01 * spread
    assert abs(streamed.high - high) < 0.01 * spread


def test_slices_of_different_sizes_share_the_statistics(head: Callable[..., Plane]) -> None:
    small, large = Normaliser(MRPercentile()).series([head(size=80, radius=30), head(size=120, radius=45)])
    assert small.step.params["low"] == large.step.params["low"]
    assert (small.step.params["native"], large.step.params["native"]) == ([80, 80], [120, 120])


@given(st.integers(0, 2**32 - 1), st.integers(2, 90), st.integers(2, 90))
@settings(max_examples=40, deadline=None)
def test_every_kind_stays_in_range(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = (rng.normal(0, 10 ** rng.uniform(-2, 4), (height, width)) + rng.normal(0, 500)).astype(np.float32)
    for config in (
        CTWindow(body=BodyConfig(method="frame")),
        RobustRange(),
        FixedRange(body=BodyConfig(method="frame")),
    ):
        item = Normaliser(config).series([Plane(pixels)])[0]
        assert item.image.dtype == np.float32
        assert item.body.dtype == bool
        assert item.image.shape == item.body.shape == (1, 64, 64)
        assert -1 <= item.image.min() <= item.image.max() <= 1


def test_planes_split_frames() -> None:
    stack = Plane(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.ones((2, 3, 4), bool))
    first, second = planes(stack)
    np.testing.assert_array_equal(second.pixels, stack.pixels[1])
    assert first.valid.shape == (3, 4)
    assert next(planes(Plane(stack.pixels))).valid is None
