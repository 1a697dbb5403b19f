"""Letterbox and resampling: golden numbers, exactness, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.images.letterbox import Letterbox, resample
from pipeline.errors import ConfigError

edges = st.integers(1, 300)


@pytest.mark.parametrize(
    ("native", "size", "inner", "offset"),
    [
        ((256, 256), 64, (64, 64), (0, 0)),
        ((512, 256), 64, (64, 32), (0, 16)),
        ((100, 300), 64, (21, 64), (21, 0)),  # 100 * 64 / 300 = 21.33
        ((1955, 1841), 64, (64, 60), (0, 2)),  # 1841 * 64 / 1955 = 60.27
        ((1, 1), 32, (32, 32), (0, 0)),
        ((1, 1000), 64, (1, 64), (31, 0)),  # 0.064 would vanish: at least one row
        ((20, 30), 128, (85, 128), (21, 0)),  # enlarged: 85.33
    ],
)
def test_letterbox_golden(native: tuple, size: int, inner: tuple, offset: tuple) -> None:
    box = Letterbox.fit(native, size)
    assert (box.inner, box.offset) == (inner, offset)


@given(edges, edges, st.integers(32, 256))
def test_letterbox_fits_and_keeps_the_aspect(height: int, width: int, size: int) -> None:
    box = Letterbox.fit((height, width), size)
    assert max(box.inner) == size
    for inner, offset, native in zip(box.inner, box.offset, (height, width), strict=True):
        assert 1 <= inner <= size
        assert offset >= 0
        assert offset + inner <= size
        assert abs(inner - native * size / max(height, width)) <= 1
    assert Letterbox.from_json(box.to_json()) == box


@given(edges, edges, st.integers(32, 128))
@settings(max_examples=50, deadline=None)
def test_a_constant_stays_constant_and_shapes_return(height: int, width: int, size: int) -> None:
    box = Letterbox.fit((height, width), size)
    grid = box.place(np.full((height, width), 7.25, np.float32), fill=-1)
    np.testing.assert_allclose(grid[box.window], 7.25, rtol=1e-5)
    outside = np.ones((size, size), bool)
    outside[box.window] = False
    assert (grid[outside] == -1).all()
    back = box.restore(grid)
    assert back.shape == (height, width)
    np.testing.assert_allclose(back, 7.25, rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (64, 33), (5, 64)])
def test_nothing_is_resampled_where_the_size_fits(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    box = Letterbox.fit(shape, 64)
    np.testing.assert_array_equal(box.restore(box.place(image, 0.0)), image)


def test_resample_returns_a_copy() -> None:
    image = np.zeros((4, 4), np.float32)
    resample(image, (4, 4))[0, 0] = 5
    assert image[0, 0] == 0


def test_halving_uses_the_triangle_filter() -> None:
    # One row, 8 -> 4: centre of output k at 2k + 1; triangle of half-width 2 at pixel centres i + 0.5. Inner weights
    # are (1/4, 3/4, 3/4, 1/4) / 2; at the border the first is cut off: (3/4, 3/4, 1/4) / 1.75.
    row = np.zeros((1, 8), np.float32)
    row[0, 1] = 1
    np.testing.assert_allclose(resample(row, (1, 4)), [[0.75 / 1.75, 0.125, 0, 0]], atol=1e-6)


def test_doubling_is_bilinear_at_half_pixel_centres() -> None:
    # Output centres 0.25, 0.75, 1.25, 1.75 of a source with centres 0.5 and 1.5; the ends are clamped.
    np.testing.assert_allclose(resample(np.array([[0.0, 4.0]]), (1, 4)), [[0, 1, 3, 4]], atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 64), (50, 61), (200, 170)])
def test_resampling_equals_pillow(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).uniform(-100, 900, (128, 111)).astype(np.float32)
    theirs = np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resample(image, shape), theirs, atol=0.02)


@given(st.integers(2, 90), st.integers(2, 90), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_interpolation_stays_within_its_input(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).uniform(-5, 11, (height, width)).astype(np.float32)
    for shape in ((64, 64), (33, 7), (200, 1)):
        out = resample(image, shape)
        assert out.min() >= image.min() - 1e-4
        assert out.max() <= image.max() + 1e-4


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(0, 5\)"):
        Letterbox.fit((0, 5), 64)
    with pytest.raises(ConfigError, match="3, 4, 5"):
        Letterbox.fit((3, 4, 5), 64)
    with pytest.raises(ConfigError, match="64 x 64"):
        Letterbox.fit((9, 9), 64).restore(np.zeros((32, 32), np.float32))
    with pytest.raises(ConfigError, match="letterbox"):
        Letterbox.from_json({"native": [1, 2]})
