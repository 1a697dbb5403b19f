"""Images that no scanner should produce: the correct result, or a rejection with its code."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.images.body import BodyConfig
from pipeline.data.images.intensity import AnyRange
from pipeline.data.images.normalise import CTWindow, FixedRange, MRMedian, MRPercentile, Normaliser, Plane, RobustRange
from pipeline.errors import ConfigError, Rejected, RejectionCode

ALL = [CTWindow(), MRPercentile(), MRMedian(), RobustRange(), FixedRange()]


def code_of(config: AnyRange, *slices: Plane) -> RejectionCode:
    with pytest.raises(Rejected) as caught:
        Normaliser(config).series(list(slices))
    return caught.value.code


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_value_is_refused(config: AnyRange, bad: float) -> None:
    pixels = np.random.default_rng(0).uniform(0, 200, (40, 40)).astype(np.float32)
    pixels[3, 4] = bad
    assert code_of(config, Plane(pixels)) == RejectionCode.NON_FINITE
    assert code_of(config, Plane(np.full((8, 8), bad))) == RejectionCode.NON_FINITE


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
def test_a_non_finite_value_in_padding_is_harmless(config: AnyRange) -> None:
    pixels = np.random.default_rng(0).uniform(0, 200, (64, 64)).astype(np.float32)
    valid = np.ones((64, 64), bool)
    valid[:10] = False
    zeros, odd = (np.where(valid, pixels, value).astype(np.float32) for value in (0, np.nan))
    one, other = (Normaliser(config).series([Plane(values, valid)])[0] for values in (zeros, odd))
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.body, other.body)
    assert not one.body[0, :9].any()


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
def test_nothing_but_padding_is_refused(config: AnyRange) -> None:
    plane = Plane(np.full((20, 20), 100.0), np.zeros((20, 20), bool))
    assert code_of(config, plane) == RejectionCode.EMPTY_FOREGROUND


def test_a_constant_image() -> None:
    constant = Plane(np.full((50, 70), 40.0))
    assert code_of(MRPercentile(), constant) == RejectionCode.EMPTY_FOREGROUND
    assert code_of(RobustRange(), constant) == RejectionCode.NO_CONTRAST
    assert code_of(CTWindow(), Plane(np.full((50, 70), -1000.0))) == RejectionCode.EMPTY_FOREGROUND
    item = Normaliser(CTWindow()).series([constant])[0]  # 40 HU everywhere: a phantom of water is a right answer
    inner = item.image[0][item.body[0]]
    assert inner.size == 46 * 64
    np.testing.assert_allclose(inner, 0, atol=1e-6)


def test_two_equal_values_in_the_foreground_give_no_contrast() -> None:
    pixels = np.zeros((40, 40))
    pixels[10:30, 10:30] = 500
    assert code_of(MRPercentile(), Plane(pixels)) == RejectionCode.NO_CONTRAST


def test_a_foreground_around_zero_has_no_median_to_scale_by() -> None:
    pixels = np.tile(np.linspace(-900, 100, 40), (40, 1))
    config = MRMedian(body=BodyConfig(method="threshold", threshold=-950))
    assert code_of(config, Plane(pixels)) == RejectionCode.NO_CONTRAST


def test_no_slices_at_all() -> None:
    assert Normaliser(CTWindow()).series([]) == []
    assert code_of(MRPercentile()) == RejectionCode.EMPTY_FOREGROUND


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1), (1, 5000), (17, 31), (255, 257)])
@pytest.mark.parametrize("size", [32, 63, 256])
def test_tiny_odd_and_stretched_images(shape: tuple[int, int], size: int) -> None:
    pixels = np.linspace(1, 900, shape[0] * shape[1]).reshape(shape)
    for config in (CTWindow(image_size=size), FixedRange(image_size=size, high=1000, body=BodyConfig(method="frame"))):
        item = Normaliser(config).series([Plane(pixels)])[0]
        assert item.image.shape == (1, size, size)
        assert np.isfinite(item.image).all()
        assert item.body.any()
        assert Normaliser(config).invert(item.image[0], item.step).shape == shape


def test_a_huge_image() -> None:
    pixels = np.zeros((5000, 4000), np.uint16)
    pixels[1000:4000, 500:3500] = np.linspace(100, 60000, 3000, dtype=np.uint16)
    item = Normaliser(RobustRange(image_size=256)).series([Plane(pixels)])[0]
    assert item.step.params["inner"] == [256, 205]
    assert item.body.any()


@pytest.mark.parametrize("offset", [-1e6, -500.0, 1e6])
def test_negative_and_offset_values(offset: float) -> None:
    pixels = (np.random.default_rng(0).uniform(0, 1000, (64, 64)) + offset).astype(np.float32)
    plain = Normaliser(RobustRange()).series([Plane((pixels - np.float32(offset)).astype(np.float32))])[0]
    moved = Normaliser(RobustRange()).series([Plane(pixels)])[0]
    np.testing.assert_allclose(plain.image, moved.image, atol=1e-3)


def test_the_largest_floats_neither_overflow_nor_warn() -> None:
    largest = float(np.finfo(np.float32).max)
    pixels = np.linspace(-largest, largest, 64 * 64).reshape(64, 64)
    with np.errstate(all="raise"):
        item = Normaliser(RobustRange()).series([Plane(pixels)])[0]
    assert item.image.min() == -1
    assert item.image.max() == 1
    assert abs(float(item.image.mean())) < 0.01


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float64, bool])
def test_any_number_type_is_read(dtype: type) -> None:
    pixels = (np.arange(64 * 64).reshape(64, 64) % 7).astype(dtype)
    item = Normaliser(FixedRange(high=7, body=BodyConfig(method="frame"))).series([Plane(pixels)])[0]
    np.testing.assert_allclose(item.image[0], pixels.astype(np.float32) / 3.5 - 1, atol=1e-6)


def test_the_input_is_never_changed() -> None:
    pixels = np.random.default_rng(0).uniform(-500, 900, (64, 64)).astype(np.float32)
    valid = pixels < 800
    before = pixels.copy(), valid.copy()
    for config in ALL:
        Normaliser(config).series([Plane(pixels, valid)])
    np.testing.assert_array_equal(pixels, before[0])
    np.testing.assert_array_equal(valid, before[1])


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[H, W\]"):
        Normaliser(CTWindow()).apply(Plane(np.zeros((2, 3, 4))))
    with pytest.raises(ConfigError, match="valid mask"):
        Normaliser(CTWindow()).apply(Plane(np.zeros((3, 4)), np.ones((4, 3), bool)))
