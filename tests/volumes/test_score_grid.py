"""The grid's cells against the detectors that they name: series long and short, alone, uneven, and judged in part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.normalise import CTWindow, Normaliser
from pipeline.data.sets.selection import Selection
from pipeline.data.store.pixel_store import PixelStore
from pipeline.detection.aggregate import AggregateConfig
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.residual import ResidualConfig
from pipeline.detection.score_grid import GridConfig
from pipeline.detection.two_sided import TwoSided
from pipeline.evaluation.pixel_metrics import PixelCase
from pipeline.evaluation.pixel_point import PixelPoint
from pipeline.methods import build_method, parse_method
from pipeline.methods.stored_model import Model, save_model
from pipeline.stages.choose import grid_cells
from pipeline.stages.choose.answer_cache import KeptAnswers, keep_answers
from pipeline.stages.choose.grid_cells import GridCell, evaluate_grid
from pipeline.stages.choose.grid_search import worth_trying
from pipeline.stages.run.run_config import RunConfig
from pipeline.types import SliceRef

OWN = DetectionConfig(
    residual=ResidualConfig(kind="l1", median=3, erode=1, adjacent=0.5),
    aggregate=AggregateConfig(map="top_fraction", fraction=0.03),
    batch_size=4,
)
TRIED = GridConfig(
    kinds=("l1", "ssim"), sigma_fractions=(3 / 64,), medians=(1,), erosions=(0, 6), adjacents=(0.0, 1.0),
    hystereses=(1.0, 2.0), maps=("mean",),
)  # fmt: skip
Refs = list[SliceRef]


class Scans(NamedTuple):
    """Slices by series, those that are judged, and data sets of them."""

    members: dict[str, Refs]
    judged: Refs
    data: Callable[..., SliceDataset]


@pytest.fixture
def scans(volume: Callable[..., Refs], store: PixelStore, slices: Callable[..., SliceDataset]) -> Scans:
    """A long series, an uneven one, a slice alone, and one of which three slices are judged, out of order."""
    long, part = volume("long", 9, seed=1), volume("part", 8, seed=2)
    alone = volume("alone", 5, seed=3)[2:3]
    places = (0.0, 0.03, 0.1, 0.5, 0.55, 1.0)
    uneven = [
        replace(ref, relative_position=place, geometric_position=place, slice_mm=None)
        for ref, place in zip(volume("uneven", 6, seed=4), places, strict=True)
    ]
    lesion = np.zeros((1, 40, 48), np.uint8)
    lesion[0, 15:25, 20:28] = 1
    key = store.put(lesion)
    groups = {
        refs[0].series_id: [replace(r, label="abnormal", mask_key=key) if i % 3 == 2 else r for i, r in enumerate(refs)]
        for refs in (long, part, alone, uneven)
    }
    groups["part"] = [r if i in (1, 2, 5) else replace(r, label="unknown") for i, r in enumerate(groups["part"])]
    judged = [*groups["long"], *(groups["part"][i] for i in (5, 1, 2)), *groups["alone"], *groups["uneven"]]
    every = [ref for refs in groups.values() for ref in refs]
    return Scans(groups, judged, lambda **options: slices(every, judged, **options))


@pytest.fixture
def normals(volume: Callable[..., Refs]) -> Refs:
    """Validate normals."""
    return [ref for i in range(3) for ref in volume(f"normal{i}", 6, seed=10 + i)]


def make(method: str, small: Mapping[str, Any], folder: Path) -> Detector:
    built = build_method(parse_method({"name": method, **small[method]}), 32, seed=1).eval()
    model = save_model(folder / "model", Model(built, Normaliser(CTWindow(image_size=32))))
    return Detector(model, OWN, "ct")


def run_config(method: str, small: Mapping[str, Any]) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "grid",
            "unit": "slice",
            "data": {"route": "ct", "normaliser": {"kind": "ct_window", "image_size": 32}},
            "method": {"name": method, **small[method]},
            "detection": OWN.model_dump(mode="json"),
        }
    )


def evaluated(
    detector: Detector, scans: Scans, normals: SliceDataset, config: RunConfig, folder: Path
) -> list[GridCell]:
    answers = {
        name: keep_answers(detector, data, folder / name)
        for name, data in (("validate", normals), ("develop", scans.data()))
    }
    return evaluate_grid(detector, answers, config, TRIED)[0]


def scored(detector: Detector, cell: GridCell, data: Callable[..., SliceDataset], normals: Callable[..., SliceDataset]):
    """Score as the detector of a cell does, on the data set that such a run is given."""
    named = detector.under(OWN.model_copy(update=cell.update()))
    if cell.transform == "two_sided":
        baseline = list(named.raw().score_slices(normals(whole=named.whole)))
        named = named.centred(TwoSided.fit([r.score for r in baseline], [r.id for r in baseline]))
    dataset = data(whole=named.whole)
    return dataset, named, list(named.score_slices(dataset))


@pytest.mark.parametrize("method", ["ae", "ae_u"])  # a reconstruction, and a map of the method's own
def test_cells_are_what_their_detectors_score(
    method: str, small: Any, scans: Scans, normals: Refs, slices: Callable[..., SliceDataset], tmp_path: Path
) -> None:
    detector, config = make(method, small, tmp_path), run_config(method, small)
    cells = evaluated(detector, scans, slices(normals), config, tmp_path)
    maps, aggregates = (3 if method == "ae" else 2), 2
    assert len(cells) == maps * 3 * 3 * 2 * aggregates * 2  # erosions, weights, hystereses, aggregates, transforms
    assert {(cell.residual.adjacent, cell.residual.hysteresis) for cell in cells} == set(
        product((0.5, 0.0, 1.0), (1.0, 2.0))
    )
    assert cells[0].residual == OWN.residual and cells[0].aggregate == OWN.aggregate
    for cell in [cells[0], *cells[::11]]:
        data, named, results = scored(detector, cell, scans.data, lambda **options: slices(normals, **options))
        scores = np.array([result.score for result in results])
        units = cell.units["develop"]
        slack = 1e-7 if cell.transform == "none" else 1e-5  # two-sided, a score is a difference over a MAD
        np.testing.assert_allclose(units.scores, scores[np.isfinite(scores)], rtol=2e-5, atol=slack)
        if cell.residual.erode == 6:
            assert np.isnan(scores).any() and len(units.scores) < len(scans.judged)  # the ball's ends are gone
        point = PixelPoint(config.evaluation, "model")
        for result in results:
            ref, mask = data.ref(result.id), data.read_mask(result.id)
            anomaly = named.native(result, data.step(result.id), reconstruction=False)
            if math.isfinite(result.score):
                truth = np.zeros(anomaly.body.shape, bool) if mask is None else mask
                point.add(
                    PixelCase(ref.patient_id, result.id, ref.label, {"model": anomaly.values}, anomaly.body, truth)
                )
        assert [cell.figures["pixel_ap"], cell.figures["oracle_dice"]] == pytest.approx(point.result(), abs=1e-5)


def test_neighbours_that_are_not_judged_are_averaged_with(
    small: Any, scans: Scans, normals: Refs, slices: Callable[..., SliceDataset], tmp_path: Path
) -> None:
    """Of the series judged in part, slices 1, 2 and 5: with only themselves to average they would score otherwise."""
    detector = make("ae", small, tmp_path)
    cells = evaluated(detector, scans, slices(normals), run_config("ae", small), tmp_path)
    cell = next(c for c in cells if c.residual.adjacent == 1 and c.residual.erode == 0 and c.transform == "none")
    here = [place for place, ref in enumerate(scans.judged) if ref.series_id == "part"]
    chosen = [scans.judged[place] for place in here]
    named = detector.under(OWN.model_copy(update=cell.update()))
    whole = slices(scans.members["part"], chosen)
    assert cell.units["develop"].scores[here] == pytest.approx([r.score for r in named.score_slices(whole)], rel=1e-5)
    among_themselves = [r.score for r in named.score_slices(slices(chosen))]
    assert np.abs(cell.units["develop"].scores[here] - among_themselves).min() > 1e-4


def test_one_series_is_held_at_once_and_computed_in_parts(
    small: Any, scans: Scans, normals: Refs, slices: Callable[..., SliceDataset], tmp_path: Path, monkeypatch: Any
) -> None:
    detector, asked, cleaned = make("ae", small, tmp_path), [], []
    answer, clean = Detector.answer, grid_cells.cleaned_maps
    monkeypatch.setattr(Detector, "answer", lambda self, batch: (asked.append(len(batch.ids)), answer(self, batch))[1])
    monkeypatch.setattr(grid_cells, "cleaned_maps", lambda *a: (cleaned.append(len(a[0])), clean(*a))[1])
    evaluated(detector, scans, slices(normals), run_config("ae", small), tmp_path)
    assert sum(asked) == 9 + 8 + 1 + 6 + 18 and max(asked) == OWN.batch_size  # once per slice, the unjudged too
    assert max(cleaned) == OWN.batch_size
    monkeypatch.setattr(Detector, "answer", lambda *_: pytest.fail("a second forward pass"))
    cache = keep_answers(detector, scans.data(), tmp_path / "develop")
    assert [len(stack.batch.ids) for stack, _ in cache] == [9, 8, 1, 6]
    assert [list(stack.selected) for stack, _ in cache][1] == [5, 1, 2]
    assert isinstance(cache, KeptAnswers) and [n for stack, _ in cache for n in stack.selected.values()] == [
        r.slice_id for r in cache.refs
    ]


def test_slices_without_neighbours_are_kept_as_before(
    small: Any, scans: Scans, slices: Callable[..., SliceDataset], tmp_path: Path
) -> None:
    """Without a weight above 0 nothing but the judged slices is answered, batch by batch."""
    detector = make("ae", small, tmp_path)
    cache = keep_answers(detector, scans.data(whole=False), tmp_path / "apart")
    assert cache.answers.shape[0] == len(scans.judged)
    assert [len(stack.batch.ids) for stack, _ in cache] == [4, 4, 4, 4, 3]
    whole = keep_answers(detector, scans.data(), tmp_path / "whole")
    together = torch.cat([answers[list(stack.selected)] for stack, answers in whole])
    torch.testing.assert_close(torch.from_numpy(np.array(cache.answers)), together)


def test_the_weight_is_tried_where_a_series_has_several_slices(small: Any, scans: Scans) -> None:
    config = run_config("ae", small)
    several = Selection(tuple(scans.judged), (), {key: tuple(refs) for key, refs in scans.members.items()})
    alone = replace(several, slices=tuple(scans.members["alone"]), members={"alone": tuple(scans.members["alone"])})
    assert worth_trying(TRIED, config, [alone, several]) == TRIED
    assert worth_trying(TRIED, config, [alone]).adjacents == (0.5,)
    assert GridConfig().adjacents == (0.0, 1.0)
    with pytest.raises(ValidationError, match=r"adjacents\n.*\b1\.5\b"):
        GridConfig(adjacents=(0.0, 1.5))
    with pytest.raises(ValidationError, match=r"hystereses\n.*\b0\.5\b"):
        GridConfig(hystereses=(1.0, 0.5))
    alone = GridConfig(adjacents=(0.0,))
    assert not alone.whole and alone.model_copy(update={"hystereses": (2.0,)}).whole and GridConfig().whole
