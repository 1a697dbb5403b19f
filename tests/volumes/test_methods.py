"""Every registered method in three dimensions: trained on cubes, scoring whole series by tiling."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.training_cubes import PatchDataset
from pipeline.detection.detector import Detector
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.detection.tiles import Tiling
from pipeline.methods import METHODS
from pipeline.methods.capabilities import Reconstructor
from pipeline.training import TrainingConfig, fit
from pipeline.types import SliceRef


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_learns_cubes_and_scores_series(
    name: str,
    build: Callable[..., Detector],
    volume: Callable[..., list[SliceRef]],
    slices: Callable[..., SliceDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = build(name, grid={"patches": 2, "slice_mm": 4.0})
    lessons = PatchDataset(slices([*volume("a", 21), *volume("b", 30, seed=1)]), start.volumes)
    before = {key: value.clone() for key, value in start.method.state_dict().items()}
    config = TrainingConfig(images=4, batch_size=2, validate_every_images=4)
    method = fit(start.method, lessons, lessons, config, tmp_path / "run").method
    assert any(not torch.equal(before[key], value) for key, value in method.state_dict().items())

    detector, data = (
        replace(start, model=replace(start.model, method=method)),
        slices(volume("c", 33, seed=2, shape=(45, 37))),
    )
    (stack,) = data.stacks()
    scored = detector.score_batch(stack.batch)
    assert scored.scores.shape == (33,) and scored.maps.shape == (33, 1, 32, 32)
    assert torch.equal(torch.isfinite(scored.scores), stack.batch.body.flatten(1).any(dim=1))
    assert (scored.reconstructions is None) == (not isinstance(method, Reconstructor))
    assert float(scored.maps.std()) > 0

    one = replace(
        detector,
        config=detector.config.model_copy(update={"tiles": detector.config.tiles.model_copy(update={"at_once": 1})}),
    )
    alone, in_order = one.score_batch(stack.batch), Tiling.__iter__
    np.testing.assert_allclose(alone.scores, scored.scores, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(Tiling, "__iter__", lambda self: shuffled(in_order(self)))
    again = one.score_batch(stack.batch)
    assert torch.equal(again.maps, alone.maps) and torch.equal(again.scores.nan_to_num(), alone.scores.nan_to_num())
    monkeypatch.undo()

    save_detector(tmp_path / "d", detector)
    loaded = load_detector(tmp_path / "d").score_batch(stack.batch)
    assert torch.equal(loaded.maps, scored.maps)


def shuffled(starts: Iterator[Any]) -> Iterator[Any]:
    in_order = list(starts)
    return iter(random.Random(3).sample(in_order, len(in_order)))
