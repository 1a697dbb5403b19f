"""Cells of a score grid: from stored model outputs to units, and from units to metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from pipeline.data.images.dataset import Stack
from pipeline.detection.aggregate import AggregateConfig, aggregate_study
from pipeline.detection.detector import Detector
from pipeline.detection.residual import ResidualConfig
from pipeline.detection.score_grid import (
    GridConfig,
    MapCell,
    aggregates,
    cleaned_maps,
    counted_maps,
    map_cells,
    slice_scores,
)
from pipeline.detection.slices import native_map
from pipeline.detection.two_sided import TwoSided
from pipeline.detection.volumes import in_parts, joined
from pipeline.errors import ConfigError, Rejected, TooFewNormals
from pipeline.evaluation.pixel_metrics import PixelCase
from pipeline.evaluation.pixel_point import PixelPoint
from pipeline.methods.capabilities import Reconstructor
from pipeline.stages.choose.answer_cache import KeptAnswers
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.score_slices import OnProgress
from pipeline.types import Batch, SliceRef

Part = Literal["validate", "develop"]
MAP = "model"


@dataclass(frozen=True, slots=True)
class Units:
    """The scored units of one part, slices or studies; `positions` are NaN for studies."""

    scores: np.ndarray
    patients: tuple[str, ...]
    abnormal: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True, slots=True)
class GridCell:
    """One score: its settings, its units in each part, and its metrics."""

    residual: ResidualConfig
    aggregate: AggregateConfig
    transform: Literal["none", "two_sided"]
    own_map: bool
    units: Mapping[Part, Units]
    figures: Mapping[str, float]

    def update(self) -> dict[str, Any]:
        """Return the fields of a DetectionConfig that make this cell."""
        return {"residual": self.residual, "aggregate": self.aggregate, "transform": self.transform}

    def row(self) -> dict[str, Any]:
        """Return the cell's line in the table; what does not apply is None."""
        residual, aggregate = self.residual, self.aggregate
        return {
            "kind": "own map" if self.own_map else residual.kind,
            "direction": residual.direction if residual.kind == "signed" and not self.own_map else None,
            "sigma_fraction": residual.sigma_fraction if residual.kind == "ssim" and not self.own_map else None,
            "low_pass": None if self.own_map else residual.low_pass,
            "median": residual.median,
            "smooth_fraction": residual.smooth_fraction,
            "erode": residual.erode,
            "adjacent": residual.adjacent,
            "hysteresis": residual.hysteresis,
            "map": aggregate.map,
            "fraction": aggregate.fraction if aggregate.map == "top_fraction" else None,
            "transform": self.transform,
            **self.figures,
        }


def evaluate_grid(
    detector: Detector,
    parts: Mapping[Part, KeptAnswers],
    config: RunConfig,
    tried: GridConfig,
    on_progress: OnProgress | None = None,
) -> tuple[list[GridCell], tuple[str, ...]]:
    """Return every cell, the run's own setting first, and notes on settings that could not be tried.

    One map at a time is computed for every slice and reduced at once, so memory does not grow with the number of maps.
    """
    walk = _Walk(detector, parts, config, tried)
    maps = map_cells(tried, config.require_detection(), walk.reconstructs)
    cells: list[GridCell] = []
    for done, cell in enumerate(maps, start=1):
        cells += walk.cells(cell)
        if on_progress is not None:
            on_progress(done, len(maps))
    return cells, tuple(walk.notes)


class _Walk:
    """One pass over the stored outputs for each map of the grid."""

    def __init__(
        self, detector: Detector, parts: Mapping[Part, KeptAnswers], config: RunConfig, tried: GridConfig
    ) -> None:
        self.detector, self.parts, self.config, self.tried = detector, parts, config, tried
        self.reconstructs = isinstance(detector.method, Reconstructor)
        self.aggregates = aggregates(tried, config.require_detection().aggregate)
        self.transforms = tuple(dict.fromkeys((config.require_detection().transform, *tried.transforms)))
        self.notes: dict[str, None] = {}
        develop = parts["develop"].data
        self.masks = {ref.slice_id: develop.read_mask(ref.slice_id) for ref in develop.slices if ref.mask_key}

    def cells(self, cell: MapCell) -> Iterator[GridCell]:
        """Yield the cells of one cleaned map: all its erosions, weights, hystereses, aggregates and transforms."""
        configs = cell.configs()
        points = [PixelPoint(self.config.evaluation, MAP) for _ in configs]
        distinct = {id(stored): self._scores(stored, cell, points) for stored in self._distinct()}
        scores = {name: distinct[id(stored)] for name, stored in self.parts.items()}
        for c, residual in enumerate(configs):
            pixels = dict(zip(("pixel_ap", "oracle_dice"), points[c].result(), strict=True))
            for a, aggregate in enumerate(self.aggregates):
                raw = {name: scores[name][c, a] for name in self.parts}
                yield from self._transformed(residual, aggregate, raw, pixels)

    def _distinct(self) -> list[KeptAnswers]:
        return list({id(stored): stored for stored in self.parts.values()}.values())

    def _scores(self, stored: KeptAnswers, cell: MapCell, points: Sequence[PixelPoint]) -> np.ndarray:
        """Return float64 [configs of the cell, aggregates, N]; the pixels of develop go to `points`."""
        configs, parts = cell.configs(), []
        for stack, answers in stored:
            maps, rows = self._maps(stack.batch, answers, cell.residual), []
            judged = list(stack.selected)
            for point, config in zip(points, configs, strict=True):
                inside, counted = (tensor[judged] for tensor in counted_maps(maps, stack.batch.body, config))
                rows.append(slice_scores(inside, counted, self.aggregates))
                if self.masks and stored is self.parts["develop"]:
                    self._pixels(stack, inside, counted, point)
            parts.append(torch.stack(rows))
        return torch.cat(parts, dim=2).numpy() if parts else np.zeros((len(configs), len(self.aggregates), 0))

    def _maps(self, batch: Batch, answers: torch.Tensor, residual: ResidualConfig) -> torch.Tensor:
        """Return the cleaned maps of a batch, or of a (possibly long) series in parts of batch size."""
        parts = in_parts(self.detector.config.batch_size, len(batch.ids))
        return joined([cleaned_maps(answers[part], batch.images[part], residual, self.reconstructs) for part in parts])

    def _pixels(self, stack: Stack, maps: torch.Tensor, counted: torch.Tensor, point: PixelPoint) -> None:
        """Add the evaluated slices' maps, on the native grid, to the pixel metrics of develop; as in its evaluation, a
        slice without counted pixels is left out."""
        data = self.parts["develop"].data
        for row, (place, name) in enumerate(stack.selected.items()):
            ref, mask = data.ref(name), self.masks.get(name)
            if not counted[row].any() or (ref.label == "abnormal" and mask is None):
                continue
            grids = maps[row, 0].numpy(), stack.batch.body[place, 0].numpy()
            values, body = native_map(self.detector.normaliser, *grids, data.step(name))
            truth = np.zeros(body.shape, bool) if mask is None else mask
            point.add(PixelCase(ref.patient_id, name, ref.label, {MAP: values}, body, truth))

    def _transformed(
        self,
        residual: ResidualConfig,
        aggregate: AggregateConfig,
        raw: Mapping[Part, np.ndarray],
        pixels: Mapping[str, float],
    ) -> Iterator[GridCell]:
        for transform in self.transforms:
            change = self._transform(transform, raw["validate"])
            if change is None:
                continue
            units = {
                name: units_of(change(raw[name]), stored.refs, self.config.unit, aggregate)
                for name, stored in self.parts.items()
            }
            figures = {**image_figures(units, self.config), **pixels}
            yield GridCell(residual, aggregate, transform, not self.reconstructs, units, figures)

    def _transform(self, name: str, validate: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
        if name == "none":
            return lambda scores: scores
        try:
            patients = [ref.patient_id for ref in self.parts["validate"].refs]
            return TwoSided.fit(validate.tolist(), patients).apply_values
        except (TooFewNormals, ConfigError) as reason:
            self.notes[f"Two-sided cells are left out: {reason}"] = None
            return None


def units_of(scores: np.ndarray, refs: Sequence[SliceRef], unit: str, aggregate: AggregateConfig) -> Units:
    """Return the units that have a score: slices unchanged, or studies by the detector's own rule."""
    present = [(float(score), ref) for score, ref in zip(scores, refs, strict=True) if math.isfinite(score)]
    if unit == "slice":
        positions = np.array([ref.relative_position for _, ref in present])
        return _units([(score, ref.patient_id, ref.label == "abnormal") for score, ref in present], positions)
    studies: dict[str, list[tuple[float, SliceRef]]] = {}
    for score, ref in present:
        studies.setdefault(ref.study_id, []).append((score, ref))
    rows = []
    for items in studies.values():
        slices = [ref.scored(score) for score, ref in items]
        try:
            score, _ = aggregate_study(slices, aggregate)
        except Rejected:
            continue
        rows.append((score, items[0][1].patient_id, any(ref.label == "abnormal" for _, ref in items)))
    return _units(rows, np.full(len(rows), np.nan))


def _units(rows: Sequence[tuple[float, str, bool]], positions: np.ndarray) -> Units:
    scores, abnormal = np.array([row[0] for row in rows]), np.array([row[2] for row in rows], dtype=bool)
    return Units(scores, tuple(row[1] for row in rows), abnormal, positions)


def image_figures(units: Mapping[Part, Units], config: RunConfig) -> dict[str, float]:
    """Return AUROC on develop, all and central; NaN if it is undefined."""
    develop = units["develop"]
    low, high = config.evaluation.central
    central = (develop.positions > low) & (develop.positions < high)
    several = len(np.unique(develop.positions[np.isfinite(develop.positions)])) > 1
    return {
        "auroc": auroc(develop.scores, develop.abnormal),
        "auroc_central": _central(develop, central) if several else math.nan,
    }


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the AUROC of scores [N]; NaN if a class is missing."""
    if positive.all() or not positive.any():
        return float("nan")
    areas, number = scores[positive], np.sort(scores[~positive])
    below, upto = np.searchsorted(number, areas, "left"), np.searchsorted(number, areas, "right")
    return float(np.mean((below + upto) / 2) / len(number))


def _central(develop: Units, central: np.ndarray) -> float:
    return auroc(develop.scores[central], develop.abnormal[central]) if central.any() else math.nan
