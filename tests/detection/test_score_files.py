"""From DICOM files to score, p-value and heatmap: the same through every entry point."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from pipeline.config import DecodeLimits
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.store.pixel_store import PixelStore
from pipeline.detection.detector import Detector
from pipeline.detection.score_files import ScanResult, score_file, score_files, score_scan
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.dicom.decode.read import read_instance
from pipeline.errors import ConfigError, EmptySelection, Rejected
from pipeline.methods.base import Method
from pipeline.methods.stored_model import Model
from pipeline.nn.rng import Rng
from pipeline.types import Batch, Scan, SliceRef

Series = Callable[..., list[Path]]


def test_the_five_lines_of_the_readme(detector: Detector, ct_series: Series, tmp_path: Path) -> None:
    save_detector(tmp_path / "detector", detector)
    loaded = load_detector(tmp_path / "detector")
    result = score_file(loaded, str(ct_series(1)[0]))
    assert np.isfinite(result.score)
    assert 1 / 40 <= result.p_value <= 1
    assert (result.n_calibration, result.guarantee, result.route) == (39, "conformal", "ct")
    assert result.heatmap.shape == result.body.shape == result.reconstruction.shape == (1, 40, 48)
    assert result.heatmap.dtype == np.float32
    assert (result.heatmap[~result.body] == 0).all()
    assert result.heatmap[result.body].max() > 0
    assert result.history[-1].name == "normalise"


def test_an_uncalibrated_detector_gives_no_p_value(detector: Detector, ct_series: Series) -> None:
    result = score_file(replace(detector, calibration=None), ct_series(1)[0])
    assert (result.p_value, result.n_calibration, result.guarantee) == (None, 0, "")


class Means(Method):
    """Gives one number per image, and no map."""

    def score(self, x: torch.Tensor, rng: Rng) -> torch.Tensor:
        return x.flatten(1).mean(1)


def test_without_a_map_there_are_scores_and_bodies_only(detector: Detector, ct_series: Series) -> None:
    paths = ct_series(2)
    expected = score_files(detector, paths)
    means = Model(Means(detector.method.config, 32, 1, 2), detector.normaliser)
    result = score_files(Detector(means, detector.config, "ct"), paths)
    assert result.heatmap is None and result.body is None and result.reconstruction is None
    assert [plane.history for plane in result.planes] == [plane.history for plane in expected.planes]
    for plane, other in zip(result.planes, expected.planes, strict=True):
        assert np.isfinite(plane.score) and plane.values is None
        np.testing.assert_array_equal(plane.body, other.body)


def test_files_of_a_series_in_any_order(detector: Detector, ct_series: Series) -> None:
    paths = ct_series(5)
    result = score_files(detector, paths)
    again = score_files(detector, paths[::-1])
    assert again.score == pytest.approx(result.score, rel=1e-6)
    np.testing.assert_allclose(again.heatmap, result.heatmap, rtol=1e-4, atol=1e-6)
    assert result.score == max(plane.score for plane in result.planes)
    single = [score_file(detector, path).score for path in paths]
    assert single == pytest.approx([plane.score for plane in result.planes], rel=1e-5)


def test_several_series_are_one_study(detector: Detector, ct_series: Series) -> None:
    both = [*ct_series(2, series="1.2.3.4"), *ct_series(3, series="1.2.3.5", seed=9)]
    result = score_files(detector, both)
    assert len(result.planes) == 5
    assert result.score == max(score_files(detector, both[:2]).score, score_files(detector, both[2:]).score)


def test_a_scan_in_memory_scores_as_its_files(detector: Detector, ct_series: Series) -> None:
    paths = ct_series(3)
    hu = np.stack([read_instance(path, DecodeLimits()).stored[0] for path in paths]).astype(np.float32) - 1024
    scan = Scan(hu[None], None, (5.0, 1.0, 1.0), "CT", "study", "series", "patient")
    assert score_scan(detector, scan).score == pytest.approx(score_files(detector, paths).score, rel=1e-6)
    with pytest.raises(ConfigError, match=re.escape(str(hu.shape))):
        score_scan(detector, replace(scan, pixels=hu))


def catalogued(paths: list[Path], store: PixelStore) -> list[SliceRef]:
    refs = []
    for number, path in enumerate(paths):
        item, at = read_instance(path, DecodeLimits()), number / max(len(paths) - 1, 1)
        key, attributes = store.put(item.stored), item.attributes.to_json()
        of_label = SliceRef(f"pseudonym{number}", 0, "series", "study", "patient", key, attributes, 0.123)
        refs.append(replace(of_label, geometric_position=at if len(paths) > 1 else None))
    return refs


@pytest.mark.parametrize("method", ["ae", "ddpm", "conditional_vae"])
def test_the_catalogues_door_and_the_files_give_one_score(
    build: Callable[..., Detector], ct_series: Series, tmp_path: Path, method: str
) -> None:
    detector, paths = build(method), ct_series(2)
    listening(detector)
    data = SliceDataset(catalogued(paths, store := PixelStore(str(tmp_path / "s"))), store, detector.normaliser)
    results = list(detector.score_slices(data))
    direct = score_files(detector, paths)
    assert [r.score for r in results] == pytest.approx([plane.score for plane in direct.planes], rel=1e-5)
    native = detector.native(results[1], data.step(results[1].id))
    np.testing.assert_allclose(native.values, direct.heatmap[1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(native.reconstruction, direct.reconstruction[1], rtol=1e-3, atol=1e-2)


def listening(detector: Detector) -> None:
    """Let a conditional method know every word, as after a training that met them all."""
    for name, buffer in detector.method.named_buffers():
        if name.startswith("conditions.seen_"):
            buffer.fill_(1.0)


def test_a_conditional_method_hears_of_each_slice_by_every_door(
    build: Callable[..., Detector], ct_series: Series, tmp_path: Path
) -> None:
    detector, paths = build("conditional_vae"), ct_series(3)
    listening(detector)
    heard: list[tuple] = []
    answer = detector.method.reconstruct
    detector.method.reconstruct = lambda x, rng, body, about: (heard.append(about), answer(x, rng, body, about))[1]
    data = SliceDataset(catalogued(paths, store := PixelStore(str(tmp_path / "s"))), store, detector.normaliser)
    expected = tuple(
        {"modality": "CT", "sex": "F", "age_band": "40-59", "relative_position": p} for p in (0.0, 0.5, 1.0)
    )
    list(detector.score_slices(data))
    score_files(detector, paths[::-1])
    score_file(detector, paths[0])
    alone = {name: value for name, value in expected[0].items() if name != "relative_position"}
    assert heard == [expected, expected, (alone,)]


def test_attributes_change_conditional_scores_only(build: Callable[..., Detector], batch: Batch) -> None:
    informed = replace(batch, about=tuple({"modality": "CT", "relative_position": i / 6} for i in range(7)))
    for method, moved in (("ae", False), ("conditional_vae", True)):
        detector = build(method)
        listening(detector)
        same = torch.equal(detector.score_batch(batch).scores, detector.score_batch(informed).scores)
        assert same is not moved
    alone = Batch(informed.images[4:5], informed.body[4:5], informed.ids[4:5], informed.about[4:5])
    assert_close(detector.score_batch(alone).scores, detector.score_batch(informed).scores[4:5], rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match=r"\b7\b.*attributes.*\b6\b"):
        detector.score_batch(replace(informed, about=informed.about[:6]))


def test_files_that_a_night_refuses_are_refused_here(detector: Detector, ct_series: Series, tmp_path: Path) -> None:
    (tmp_path / "Secret^Name.dcm").write_bytes(b"no dicom at all")
    with pytest.raises(Rejected) as caught:
        score_file(detector, tmp_path / "Secret^Name.dcm")
    assert "Secret" not in str(caught.value)
    paths = ct_series(5)
    with pytest.raises(Rejected, match="missing-slices"):
        score_files(detector, [*paths[:2], *paths[3:]])
    with pytest.raises(Rejected, match="duplicate-slices"):
        score_files(detector, [paths[0], paths[0]])
    with pytest.raises(ConfigError, match="several studies") as mixed:
        score_files(detector, [paths[0], *ct_series(1, study="9.9", series="9.9.1")])
    assert "9.9" not in str(mixed.value)
    with pytest.raises(EmptySelection):
        score_files(detector, [])


def test_a_scan_of_air_or_with_nan_has_no_score(detector: Detector) -> None:
    air = Scan(np.full((1, 2, 40, 40), -1000, np.float32), None, (None,) * 3, "CT", "s", "s", "p")
    with pytest.raises(Rejected, match="empty-foreground"):
        score_scan(detector, air)
    broken = air.pixels.copy()
    broken[0, 1, 5, 5] = np.nan
    with pytest.raises(Rejected, match="non-finite"):
        score_scan(detector, replace(air, pixels=broken))


def test_nothing_of_the_patient_is_in_the_result(detector: Detector, ct_series: Series) -> None:
    text = repr(score_file(detector, ct_series(1)[0]))
    assert "Secret" not in text
    assert "SECRET" not in text


def test_sizes_without_a_common_grid_are_reported(detector: Detector, ct_series: Series) -> None:
    result = score_file(detector, ct_series(1)[0])
    plane = result.planes[0]
    other = replace(plane, values=np.zeros((3, 3), np.float32))
    with pytest.raises(ConfigError, match="different sizes"):
        _ = replace(result, planes=(plane, other)).heatmap
    assert isinstance(result, ScanResult)
