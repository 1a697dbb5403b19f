"""The maps that a page shows are those that scoring made, computed once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.detection.detector_file import bundle_detector
from pipeline.errors import ArtefactError
from pipeline.review.slice_maps import MapMaker, prune
from pipeline.review.stacks import StudyStacks
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import scored_slices


@pytest.fixture
def opened(scored: Any) -> Any:
    with Catalogue.open(scored.settings) as catalogue:
        maker = MapMaker(catalogue, scored.settings)
        yield catalogue, maker, catalogue.list_findings(scored.run_id, flagged=True)[0]
        maker.close()


def test_a_heatmap_is_the_one_that_scoring_kept(opened: Any, scored: Any) -> None:
    catalogue, maker, finding = opened
    stacks = StudyStacks(catalogue).read(finding.study_id)
    file = scored.settings.absolute(catalogue.run(finding.run_id).folder) / "heatmaps" / f"{finding.study_id}.npz"
    with np.load(file) as stored:
        for name in stored.files:
            instance_id, _, frame = name.partition(".")
            stack, index = stacks.place(instance_id, int(frame))
            maps = maker.ask(finding, stacks.stacks[stack], index).result()
            displayed = maps.heat * maps.heat_step + maps.heat_first
            scale = float(stored[name].max())
            np.testing.assert_allclose(displayed, stored[name].astype(float), atol=scale * 2e-3)  # float16 there
            assert maps.top <= scale + 1e-3


def test_it_is_computed_once_and_found_again(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, maker, finding = opened
    stack = StudyStacks(catalogue).read(finding.study_id).stacks[0]
    first = maker.ask(finding, stack, 0).result()
    monkeypatch.setattr(MapMaker, "_results", lambda *_: pytest.fail("computed again"))
    again = maker.ask(finding, stack, 0).result()
    np.testing.assert_array_equal(first.heat, again.heat)
    np.testing.assert_array_equal(first.image, again.image)
    assert again.linked is True


def test_a_reconstruction_is_the_one_that_scoring_makes(opened: Any, scored: Any) -> None:
    catalogue, maker, finding = opened
    stack = StudyStacks(catalogue).read(finding.study_id).stacks[0]
    maps = maker.ask(finding, stack, 0).result()
    config = RunFolder(scored.settings.absolute(catalogue.run(finding.run_id).folder)).read_config()
    chosen = choose(catalogue, config, scored.settings, study_ids=[finding.study_id])
    detector = maker.open_model(finding).detector
    data = dataset(chosen, config, scored.settings, "none")
    native = detector.native(next(scored_slices(detector, data)))
    original = data.read_plane(native.id).pixels
    assert not native.body.all()
    expected = np.where(native.body, native.reconstruction, original)  # outside the body, the scan itself
    np.testing.assert_allclose(maps.image * maps.image_step + maps.image_first, expected, atol=maps.image_step)


def test_the_outline_is_the_calibrated_threshold(opened: Any) -> None:
    _, maker, finding = opened
    model = maker.open_model(finding)
    pixels = model.detector.calibration.pixels
    assert model.outline.threshold == pixels.threshold(model.outline.alpha)


def test_an_altered_detector_is_not_loaded(opened: Any, scored: Any, tmp_path: Path) -> None:
    catalogue, maker, finding = opened
    copied = tmp_path / "detector"
    bundle_detector(RunFolder(scored.settings.absolute(catalogue.run(finding.run_id).folder)).detector, copied)
    weights = next(copied.rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with catalogue.session() as session:
        row = session.merge(catalogue.run(finding.run_id))
        was, row.folder = row.folder, str(tmp_path)
    try:
        with pytest.raises(ArtefactError):
            maker.open_model(finding)
    finally:
        with catalogue.session() as session:
            session.merge(catalogue.run(finding.run_id)).folder = was


def test_old_maps_make_room(tmp_path: Path) -> None:
    for age in range(4):
        file = tmp_path / "ab" / f"{age}.npz"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * 100)
        os.utime(file, (1_000_000 - age, 1_000_000 - age))
    prune(tmp_path, 250)
    assert sorted(file.name for file in tmp_path.rglob("*.npz")) == ["0.npz", "1.npz"]


def test_a_cache_holds_no_pseudonym(opened: Any, scored: Any) -> None:
    catalogue, maker, finding = opened
    stack = StudyStacks(catalogue).read(finding.study_id).stacks[0]
    maker.ask(finding, stack, 0).result()
    files = list((scored.settings.workspace / "cache" / "review").rglob("*.npz"))
    assert files
    for file in files:
        content = str(file).encode() + file.read_bytes()
        assert finding.study_id.encode() not in content
        assert scored.planted.encode() not in content
