"""Stage `grid`: every score that a trained model allows, judged on develop from kept answers. Nothing is trained.

Reads validate (constants of two-sided scores) and develop. Train, calibrate, gate and test are never read, and a guard
refuses their slices. Where maps are averaged over adjacent slices, whole series are read, as the detector reads them:
their other slices, which are of the same patients and so of the same set, are averaged with and not judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import yaml

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.selection import Selection
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.score_grid import GridConfig
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import ConfigError, EmptySelection
from pipeline.stages.choose.answer_cache import KeptAnswers, keep_answers
from pipeline.stages.choose.grid_cells import Part, evaluate_grid
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import OnProgress
from pipeline.tracking.experiment import track
from pipeline.types import RunRef, SetName, SliceRef

Criterion = Literal["auroc_central", "auroc", "pixel_ap", "oracle_dice"]
FIGURES: tuple[str, ...] = get_args(Criterion)
READ: frozenset[SetName] = frozenset({"validate", "develop"})


@dataclass(frozen=True, slots=True)
class GridResult:
    """What the grid found.

    Attributes:
        table: one row a cell: its settings, and image AUROC (all, central), pixel AP, oracle Dice.
        criterion: what chose the best; the whole set's AUROC stands in where it is missing.
        best: the detection of the best cell, ready for a run's configuration.
        best_row: its row.
        notes: what a reader must know.
    """

    table: pd.DataFrame
    criterion: str
    best: DetectionConfig
    best_row: dict[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        rows = json.loads(self.table.to_json(orient="records"))
        return {
            "criterion": self.criterion,
            "best": self.best.model_dump(mode="json"),
            "notes": list(self.notes),
            "cells": rows,
        }

    def snippet(self) -> str:
        """Return the best cell as YAML for a run's configuration."""
        kept = self.best.model_dump(mode="json", include={"residual", "aggregate", "transform"})
        if self.best.residual.kind != "perceptual":
            del kept["residual"]["perceptual"]
        head = f"# best {self.criterion} on develop: {self.best_row[self.criterion]:.4f} of {len(self.table)} cells"
        return f"{head}\n{yaml.safe_dump({'detection': kept}, sort_keys=False)}"


def grid(
    run: RunRef,
    settings: Settings,
    config: GridConfig | None = None,
    criterion: Criterion = "auroc_central",
    on_progress: OnProgress | None = None,
) -> GridResult:
    """Try every score on develop without another training or forward pass, and write the best as a snippet.

    Writes `grid/grid.csv` and `grid/best.yaml` into the run folder, and one MLflow run beneath the
    run's. The answers are computed once and kept there.

    Args:
        run: a trained run of a reconstructor or mapper.
        settings: the workspace.
        config: what is tried.
        criterion: chooses the best cell.
        on_progress: called with (maps done, maps in all).

    Raises:
        EmptySelection: no labelled develop scans.
        ConfigError: the method gives a number only, the run is an ensemble, or the criterion cannot be had.
    """
    folder = RunFolder.behind(run)
    settled, detector = folder.config(), load_detector(folder.uncalibrated)
    if not isinstance(detector, Detector):
        raise ConfigError("An ensemble's score is fixed by its members; try the grid on each of them.")
    chosen = _chosen(settled, settings)
    tried = worth_trying(config or GridConfig(), settled, chosen.values())
    parts, read = _parts(folder, detector, settled, settings, chosen, whole=settled.whole or any(tried.adjacents))
    cells, notes = evaluate_grid(detector, parts, settled, tried, on_progress)
    table, notes = pd.DataFrame([cell.row() for cell in cells]), (*read, *notes)
    used = _criterion(table, criterion)
    if used != criterion:
        notes = (*notes, f"There is no {criterion} on this develop set; {used} chose instead.")
    place = int(table[used].idxmax())
    best = settled.require_detection().model_copy(update=cells[place].update())
    result = GridResult(table, used, best, table.loc[place].to_dict(), notes)
    _keep(result, folder, settings)
    return result


def _chosen(config: RunConfig, settings: Settings) -> dict[Part, Selection]:
    with Catalogue.open(settings) as catalogue:
        chosen: dict[Part, Selection] = {
            "validate": choose(catalogue, config, settings, sets=("validate",)),
            "develop": choose(catalogue, config, settings, sets=("develop",)),
        }
    if not chosen["develop"].slices:
        raise EmptySelection(
            f"No labelled scans in the develop set of {config.data.route!r}. Import labels of abnormal and normal "
            "scans: nightread labels import FILE.csv"
        )
    return chosen


def worth_trying(tried: GridConfig, config: RunConfig, chosen: Iterable[Selection]) -> GridConfig:
    """Return what the grid tries on these scans: a slice alone in its series has no neighbour to average with."""
    if any(len(refs) > 1 for selection in chosen for refs in selection.members.values()):
        return tried
    return tried.model_copy(update={"adjacents": (config.require_detection().residual.adjacent,)})


def _parts(
    folder: RunFolder,
    detector: Detector,
    config: RunConfig,
    settings: Settings,
    chosen: dict[Part, Selection],
    whole: bool,
) -> tuple[dict[Part, KeptAnswers], tuple[str, ...]]:
    """Return the answers of each part, and notes on series that the run alone would have read."""
    kept: dict[Part, KeptAnswers] = {}
    for name, selection in chosen.items():
        guard(chain.from_iterable(selection.members.values()))
        data = dataset(selection, config, settings, cache="disk", whole=whole)
        kept[name] = keep_answers(detector, data, folder.path / "grid" / name)
    refused = sum(len(part.data.rejected) for part in kept.values()) if whole and not config.whole else 0
    note = f"Series left out of every cell, as they could not be read whole: {refused}."
    return kept, (note,) if refused else ()


def guard(refs: Iterable[SliceRef]) -> None:
    """Refuse slices of a set that a choice must not see (ConfigError)."""
    if odd := sorted({str(ref.set_name) for ref in refs if ref.set_name not in READ}):
        raise ConfigError(f"The score grid was given slices of {', '.join(odd)}; it reads validate and develop only.")


def _criterion(table: pd.DataFrame, wanted: str) -> str:
    for name in (wanted, "auroc"):
        if table[name].notna().any():
            return name
    raise ConfigError(f"No cell of the grid has {wanted}: develop needs normal and abnormal scans (and masks for it).")


def _keep(result: GridResult, folder: RunFolder, settings: Settings) -> None:
    folder.write_text("grid/grid.csv", result.table.to_csv(index=False))
    folder.write_text("grid/best.yaml", result.snippet())
    parent, route = folder.read("mlflow.json")["run_id"], folder.config().data.route
    with track(settings, route, "grid", parent=parent, system_metrics=False) as tracked:
        tracked.table(result.table, "grid")
        tracked.text(result.snippet(), "best.yaml")
        figures = {name: result.best_row[name] for name in FIGURES}
        tracked.metrics({f"best/{name}": value for name, value in figures.items() if np.isfinite(value)})
        tracked.tags({"criterion": result.criterion, "cells": str(len(result.table))})
