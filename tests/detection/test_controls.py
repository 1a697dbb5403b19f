"""Trivial controls: numbers worked out by hand, an independent PCA, and no model needed."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from pipeline.data.images.normalise import Normaliser, Plane, parse_normaliser
from pipeline.detection.controls import (
    CONTROLS,
    ControlModel,
    ControlSlice,
    brightness_map,
    compressed_bytes,
    control_scores,
    gradient_energy,
    noise,
)
from pipeline.errors import ArtefactError, ConfigError, EmptySelection

FULL = np.ones((8, 8), dtype=bool)


def slices(count: int, size: int = 8, seed: int = 0) -> list[ControlSlice]:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, size, size)).astype(np.float32)
    stored = rng.integers(0, 4096, (count, 20, 30)).astype(np.uint16)
    body = np.ones((size, size), dtype=bool)
    return [ControlSlice(f"s{i}", images[i], body, stored[i], i / count) for i in range(count)]


def test_intensity_by_hand() -> None:
    image = np.zeros((8, 8), np.float32)
    image[:4] = 1.0
    body = np.zeros((8, 8), dtype=bool)
    body[2:6] = True  # two rows of 1, two rows of 0
    model = ControlModel.fit(slices(3))
    scores = control_scores([ControlSlice("s", image, body, None, 0.25)], model)
    assert set(scores) == set(CONTROLS)
    assert scores["mean_intensity"].tolist() == [0.5]
    assert scores["std"].tolist() == [0.5]
    # central differences: rows 3 and 4 have gradient -1/2, squared 1/4, two of the four body rows
    assert scores["gradient_energy"].tolist() == [0.125]
    assert scores["slice_position"].tolist() == [0.25]
    assert math.isnan(scores["compressed_bytes"][0])


def test_gradient_of_a_ramp_is_its_slope_squared() -> None:
    ramp = np.add.outer(3.0 * np.arange(8), 4.0 * np.arange(8))
    assert gradient_energy(ramp, FULL) == pytest.approx(25.0)


def test_noise_is_found_and_a_plane_has_none() -> None:
    assert noise(np.add.outer(np.arange(8.0), 2 * np.arange(8.0)), FULL) == 0
    image = np.random.default_rng(0).normal(0, 0.3, (256, 256))
    assert noise(image, np.ones_like(image, dtype=bool)) == pytest.approx(0.3, rel=0.02)
    # one bright pixel of 1 in the middle of 7 x 7: |mask| sums to 16 over 25 inner pixels
    dot = np.zeros((7, 7))
    dot[3, 3] = 1
    expected = math.sqrt(math.pi / 2) / 6 * 16 / 25
    assert noise(dot, np.ones((7, 7), dtype=bool)) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_size_is_the_pngs(dtype: type) -> None:
    frame = np.random.default_rng(0).integers(0, 200, (31, 17)).astype(dtype)
    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    assert compressed_bytes(frame) == len(buffer.getvalue())
    assert np.array_equal(np.asarray(Image.open(buffer)), frame)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32, np.float32, np.float64])
def test_every_stored_type_has_a_size_that_grows_with_detail(dtype: type) -> None:
    rough = np.random.default_rng(0).integers(-100, 100, (64, 64)).astype(dtype)
    assert 0 < compressed_bytes(np.zeros((64, 64), dtype)) < compressed_bytes(rough)


def test_pca_residual_is_scikit_learns() -> None:
    train, test = slices(40), slices(5, seed=9)
    model = ControlModel.fit(train)
    pca = PCA(16, svd_solver="full").fit(np.stack([item.image.ravel() for item in train]))
    rows = np.stack([item.image.ravel() for item in test])
    expected = np.square(rows - pca.inverse_transform(pca.transform(rows))).mean(1)
    np.testing.assert_allclose(control_scores(test, model)["pca_residual"], expected, rtol=0.05)
    basis = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    spanned = [
        ControlSlice(f"b{i}", (np.random.default_rng(i).normal(size=3) @ basis).reshape(8, 8).astype(np.float32), FULL)
        for i in range(12)
    ]
    assert control_scores(spanned, ControlModel.fit(spanned))["pca_residual"].max() < 1e-8


def test_pca_shrinks_large_images_and_survives_its_file(tmp_path: Path) -> None:
    train = slices(6, size=80)
    model = ControlModel.fit(train)
    assert (model.size, model.components.shape) == (64, (5, 64 * 64))
    model.save(tmp_path / "controls.safetensors")
    again = ControlModel.load(tmp_path / "controls.safetensors")
    before, after = control_scores(train, model), control_scores(train, again)
    for name in CONTROLS:
        np.testing.assert_array_equal(before[name], after[name])
    shuffled = ControlModel.fit(train[::-1])
    np.testing.assert_allclose(shuffled.mean, model.mean, atol=1e-6)


def test_scores_do_not_know_their_neighbours() -> None:
    many, model = slices(6), ControlModel.fit(slices(20, seed=3))
    whole = control_scores(many, model)
    alone = control_scores(many[4:5], model)
    for name in CONTROLS:
        assert whole[name][4] == pytest.approx(alone[name][0], rel=1e-6)


def test_an_empty_body_has_no_values_and_bad_input_is_refused(tmp_path: Path) -> None:
    model = ControlModel.fit(slices(4))
    scores = control_scores([ControlSlice("s", np.zeros((8, 8), np.float32), ~FULL)], model)
    assert [name for name in CONTROLS if not math.isnan(scores[name][0])] == ["slice_position"]
    with pytest.raises(EmptySelection, match="at least 2"):
        ControlModel.fit(slices(1))
    with pytest.raises(ConfigError, match="body"):
        control_scores([ControlSlice("s", np.zeros((8, 8)), np.ones((4, 4), dtype=bool))], model)
    with pytest.raises(ConfigError, match="rows, columns"):
        compressed_bytes(np.zeros((1, 2, 3), np.uint8))
    (tmp_path / "c").write_bytes(b"nothing")
    for path in (tmp_path / "c", tmp_path / "missing"):
        with pytest.raises(ArtefactError):
            ControlModel.load(path)


def test_brightness_map_is_the_image_on_its_native_grid() -> None:
    normaliser = Normaliser(parse_normaliser({"kind": "ct_window", "image_size": 32}))
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    plane = Plane(np.where(x**2 + y**2 < 0.8, 40 + 100 * x, -1000).astype(np.float32))
    item = normaliser.series([plane])[0]
    brightness = brightness_map(normaliser, ControlSlice("s", item.image[0], item.body[0]), item.step)
    assert brightness.shape == (64, 64)
    middle = brightness[32, 12:52]
    assert (np.diff(middle) > 0).all()
