"""The body mask: pixels of the patient, on constructed scenes with a known answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.data.images.body import BodyConfig, foreground_cut
from pipeline.data.images.normalise import CTWindow, FixedRange, MRPercentile, Normaliser, Plane, RobustRange

Disc = Callable[..., np.ndarray]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_ct_body_fills_lungs_and_drops_the_table(disc: Disc) -> None:
    pixels = np.full((64, 64), -1000.0, np.float32)
    body = disc(64, 28, 32, 22)
    pixels[body] = 40
    pixels[disc(64, 26, 24, 6) | disc(64, 26, 40, 6)] = -850  # lungs
    pixels[56:59, 8:56] = 200  # table
    mask = Normaliser(CTWindow(image_size=64)).apply(Plane(pixels)).body[0]
    np.testing.assert_array_equal(mask, body)


def test_both_legs_are_body(disc: Disc) -> None:
    left, right = disc(64, 32, 16, 12), disc(64, 32, 48, 11)
    pixels = np.where(left | right, 30, -1000).astype(np.float32)
    np.testing.assert_array_equal(Normaliser(CTWindow()).apply(Plane(pixels)).body[0], left | right)
    alone = CTWindow(body=BodyConfig(smaller_parts=1))
    np.testing.assert_array_equal(Normaliser(alone).apply(Plane(pixels)).body[0], left)


def test_one_of_two_equal_parts_remains_when_only_one_may() -> None:
    pixels = np.full((64, 64), -1000.0, np.float32)
    pixels[10:20, 10:20] = pixels[40:50, 40:50] = 0
    mask = Normaliser(CTWindow(body=BodyConfig(smaller_parts=1))).apply(Plane(pixels)).body[0]
    assert mask.sum() == 100


@pytest.mark.parametrize("gain", [0.01, 1.0, 5_000.0])
def test_mr_foreground_is_found_at_any_gain(head: Callable[..., Plane], disc: Disc, gain: float) -> None:
    plane = head(gain=gain, size=64, radius=24)
    mask = Normaliser(MRPercentile(image_size=64)).series([plane])[0].body[0]
    assert dice(mask, disc(64, 32, 32, 24)) > 0.98


def test_mr_scalp_behind_a_dark_skull_is_body(disc: Disc) -> None:
    whole, skull, brain = disc(96, 48, 48, 40), disc(96, 48, 48, 36), disc(96, 48, 48, 33)
    pixels = np.where(whole, 900, 0) - np.where(skull, 890, 0) + np.where(brain, 290, 0)
    mask = Normaliser(MRPercentile(image_size=96)).series([Plane(pixels.astype(np.float32))])[0].body[0]
    assert dice(mask, whole) > 0.99


def test_noise_specks_do_not_grow_arms(disc: Disc) -> None:
    pixels = np.where(disc(96, 48, 48, 30), 200.0, 0.0).astype(np.float32)
    pixels[np.random.default_rng(0).integers(0, 96, 40), np.random.default_rng(1).integers(0, 96, 40)] = 200
    mask = Normaliser(FixedRange(image_size=96)).apply(Plane(pixels)).body[0]
    assert dice(mask, disc(96, 48, 48, 30)) > 0.99


def test_projection_body_is_everything_but_padding_and_collimation() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(2000, 300, (128, 128)).astype(np.float32)
    pixels[:16] = pixels[:, 112:] = 5  # shutters
    valid = np.ones((128, 128), bool)
    valid[:, :8] = False
    mask = Normaliser(RobustRange(image_size=64)).apply(Plane(pixels, valid)).body[0]
    expected = np.zeros((64, 64), bool)
    expected[8:, 4:56] = True
    assert (mask ^ expected).sum() <= 64 * 2  # antialiasing makes the outermost line of a shutter uneven
    assert not mask[:, :4].any()


def test_letterbox_margins_are_never_body() -> None:
    pixels = np.random.default_rng(0).normal(100, 30, (40, 120)).astype(np.float32)
    for config in (CTWindow(), MRPercentile(body=BodyConfig(method="frame")), RobustRange(), FixedRange()):
        body = Normaliser(config).series([Plane(pixels)])[0].body[0]
        assert body[22:42].any()
        assert not body[:21].any()
        assert not body[43:].any()


def test_a_slice_of_air_has_an_empty_body() -> None:
    air, tissue = Plane(np.full((32, 32), -1000.0)), Plane(np.full((32, 32), 20.0))
    blank, full = Normaliser(CTWindow()).series([air, tissue])
    assert not blank.body.any()
    assert (blank.image == -1).all()
    assert full.body.all()


def test_foreground_cut_lies_in_the_gap() -> None:
    # Two classes, 75 % at 0..1 and 25 % at 100..101: the middle of the gap is near 50; half the way from the
    # background's mean of 0.5 is 0.5 + 0.5 * (50 - 0.5) = 25.
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(0, 1, 3000), rng.uniform(100, 101, 1000)])
    assert foreground_cut(values, 1.0) == pytest.approx(50, abs=1.5)
    assert foreground_cut(values, 0.5) == pytest.approx(25, abs=1.5)
    assert foreground_cut(np.full(10, 3.0), 0.5) == 3.0


def test_otsu_is_the_maximum_of_the_variance_between_classes() -> None:
    values = np.repeat([0.0, 1.0, 2.0, 9.0, 10.0], [50, 30, 10, 20, 20])

    def between(threshold: float) -> float:
        low, high = values[values <= threshold], values[values > threshold]
        return low.size * high.size * (low.mean() - high.mean()) ** 2

    best = max(np.arange(0.5, 10, 0.5), key=between)
    cut = foreground_cut(values, 1.0)
    assert between(cut) == between(best)
