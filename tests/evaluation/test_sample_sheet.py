"""Sheet of generated images: each strip's pictures, the curves of a sweep, and the strip that a leaderboard shows."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.sample_sheet import Curve, Strip, draw_curves, draw_sheet, draw_sweep, encode_strip


def flat_images(number: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return np.linspace(low, high, number)[:, None, None] * np.ones((number, 6, 6))


def test_a_sheet_shows_every_picture_of_every_strip_in_order() -> None:
    figure = draw_sheet([Strip("real", flat_images(3)), Strip("generated", flat_images(12))], "phantoms")
    drawn = [[axes.images[0].get_array()[0, 0] for axes in part.axes if axes.images] for part in figure.subfigs]
    assert drawn[0] == pytest.approx(np.linspace(-1, 1, 3))
    assert drawn[1] == pytest.approx(np.linspace(-1, 1, 12))
    assert [part.get_suptitle() for part in figure.subfigs] == ["real", "generated"]


def test_a_sweep_draws_kid_with_its_interval_and_the_floor() -> None:
    rows = [
        {"value": 5, "kid": 0.4, "low": 0.3, "high": 0.6, "seconds": 0.01},
        {"value": 50, "kid": 0.1, "low": 0.05, "high": 0.2, "seconds": 0.1},
    ]
    left, right = draw_sweep("steps", rows, floor=0.02).axes
    curve, floor = left.lines[0], left.lines[-1]
    assert list(curve.get_xdata()) == [5, 50]
    assert list(curve.get_ydata()) == [0.4, 0.1]
    assert list(floor.get_ydata()) == [0.02, 0.02]
    assert (left.get_xlabel(), left.get_xscale()) == ("steps", "log")
    assert list(right.lines[0].get_xdata()) == [0.01, 0.1]
    bars = left.collections[0].get_segments()
    assert [[low, high] for (_, low), (_, high) in bars] == [pytest.approx([0.3, 0.6]), pytest.approx([0.05, 0.2])]


def test_shares_of_a_sweep_have_a_part_of_their_own() -> None:
    rows = [
        {"value": value, "kid": 1, "low": 1, "high": 1, "seconds": 1, "recall": 1 / value, "precision": 0.5}
        for value in (1, 2)
    ]
    *_, shares = draw_sweep("guidance", rows, floor=0.02).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in shares.lines}
    assert drawn == {"recall": [1, 0.5], "precision": [0.5, 0.5]}


def test_names_of_neighbouring_points_do_not_cover_each_other_and_a_far_floor_takes_no_room() -> None:
    curves = [Curve(name, ((0.01, kid),)) for name, kid in (("vae", 3.2), ("vampprior", 3.21), ("pca", 0.8))]
    axes = draw_curves(curves, floor=-0.001).axes[0]
    offsets = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert offsets["vampprior"] > offsets["vae"] + 8 and offsets["pca"] == offsets["vae"]
    assert axes.get_ylim()[0] > 0.5
    (line,) = axes.get_legend().get_texts()
    assert "-0.001" in line.get_text()


def test_curves_run_from_fast_to_slow_and_carry_their_names() -> None:
    axes = draw_curves([Curve("flow", ((0.1, 0.3), (0.01, 0.9))), Curve("pca", ((0.001, 2.0),))], floor=0.01).axes[0]
    assert list(axes.lines[0].get_xdata()) == [0.01, 0.1]
    assert list(axes.lines[0].get_ydata()) == [0.9, 0.3]
    assert {text.get_text() for text in axes.texts} == {"flow", "pca"}


def test_a_strip_is_ten_pictures_pixel_by_pixel_with_grey_between() -> None:
    pixels = np.asarray(Image.open(BytesIO(encode_strip(flat_images(12, low=-2)))))
    assert pixels.shape == (6, 10 * 6 + 9 * 2)
    assert pixels[0, 0] == 0  # below -1 is black
    assert list(pixels[0, 6:8]) == [128, 128]
    assert pixels[0, -1] == int((np.linspace(-2, 1, 12)[9] + 1) * 127.5)
