"""Stage `grid`: try every score of a trained model on develop, from stored outputs. Nothing is trained.

Reads validate (constants of two-sided scores) and develop. Train, calibrate, gate and test are never read, and a guard
refuses their slices. If maps are averaged over adjacent slices, whole series are read, as in the detector:
their other slices, which belong to the same patients and therefore the same set, are averaged but not evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd
import yaml

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.selection import Selection
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.score_grid import GridConfig
from pipeline.detection.scorer import Scorer
from pipeline.errors import ConfigError, EmptySelection
from pipeline.stages.choose.answer_cache import KeptAnswers, keep_answers
from pipeline.stages.choose.grid_cells import Part, evaluate_grid
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.score_slices import OnProgress
from pipeline.tracking.experiment import track
from pipeline.types import RunRef, SetName, SliceRef

Criterion = Literal["auroc_central", "auroc", "pixel_ap", "oracle_dice"]
FIGURES: tuple[str, ...] = get_args(Criterion)
READ: frozenset[SetName] = frozenset({"validate", "develop"})


@dataclass(frozen=True, slots=True)
class GridResult:
    """Result of the grid.

    Attributes:
        table: one row per cell: its settings, and image AUROC (all, central), pixel AP, oracle Dice.
        criterion: the criterion that chose the best cell; the whole set's AUROC if it is missing.
        best: the detection of the best cell, ready for a run's configuration.
        best_row: its row.
        notes: notes for the reader.
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
        section = self.best.model_dump(mode="json", include={"residual", "aggregate", "transform"})
        if self.best.residual.kind != "perceptual":
            del section["residual"]["perceptual"]
        head = f"# best {self.criterion} on develop: {self.best_row[self.criterion]:.4f} of {len(self.table)} cells"
        return f"{head}\n{yaml.safe_dump({'detection': section}, sort_keys=False)}"


def search_grid(
    run: RunRef,
    settings: Settings,
    config: GridConfig | None = None,
    criterion: Criterion = "auroc_central",
    on_progress: OnProgress | None = None,
) -> GridResult:
    """Try every score on develop without another training or forward pass, and write the best as a snippet.

    Writes `grid/grid.csv` and `grid/best.yaml` into the run folder, and one MLflow run below the
    run's. The outputs are computed once and stored there.

    Args:
        run: a trained run of a reconstructor or mapper.
        settings: the workspace.
        config: values to try.
        criterion: criterion that chooses the best cell.
        on_progress: called with (maps done, total maps).

    Raises:
        EmptySelection: there are no labelled develop scans.
        ConfigError: the method gives numbers only, the run is an ensemble, or the criterion is not available.
    """
    with Catalogue.open(settings) as catalogue:
        opened = OpenRun.load_uncalibrated(run, catalogue, settings)
        return _search(opened, config or GridConfig(), criterion, on_progress)


def _search(opened: OpenRun, config: GridConfig, criterion: str, on_progress: OnProgress | None) -> GridResult:
    detector, chosen, settled = _require_single(opened.detector), _chosen(opened), opened.config
    tried = worth_trying(config, settled, chosen.values())
    parts, read = _parts(opened, detector, chosen, whole=settled.whole or tried.whole)
    cells, notes = evaluate_grid(detector, parts, settled, tried, on_progress)
    table, notes = pd.DataFrame([cell.row() for cell in cells]), (*read, *notes)
    used = _criterion(table, criterion)
    if used != criterion:
        notes = (*notes, f"{criterion} is not available on this develop set, so {used} was used instead.")
    place = int(cast(Any, table[used].idxmax()))
    best = settled.require_detection().model_copy(update=cells[place].update())
    result = GridResult(table, used, best, cast(Any, table.loc[place].to_dict()), notes)
    _keep(result, opened)
    return result


def _require_single(detector: Scorer) -> Detector:
    if not isinstance(detector, Detector):
        raise ConfigError("An ensemble's score is determined by its members. Run the grid on each of them.")
    return detector


def _chosen(opened: OpenRun) -> dict[Part, Selection]:
    chosen: dict[Part, Selection] = {
        "validate": opened.choose(sets=("validate",)),
        "develop": opened.choose(sets=("develop",)),
    }
    if not chosen["develop"].slices:
        raise EmptySelection(
            f"No labelled scans in the develop set of {opened.route!r}. Import labels of abnormal and normal "
            "scans with nightread labels import FILE.csv"
        )
    return chosen


def worth_trying(tried: GridConfig, config: RunConfig, chosen: Iterable[Selection]) -> GridConfig:
    """Return the grid's values for these scans: single slices have no neighbours to average with."""
    if any(len(refs) > 1 for selection in chosen for refs in selection.members.values()):
        return tried
    return tried.model_copy(update={"adjacents": (config.require_detection().residual.adjacent,)})


def _parts(
    opened: OpenRun, detector: Detector, chosen: dict[Part, Selection], whole: bool
) -> tuple[dict[Part, KeptAnswers], tuple[str, ...]]:
    """Return the outputs of each part, and notes on series that only the run itself could read."""
    parts: dict[Part, KeptAnswers] = {}
    for name, selection in chosen.items():
        guard(chain.from_iterable(selection.members.values()))
        data = opened.dataset(selection, cache="disk", whole=whole)
        parts[name] = keep_answers(detector, data, opened.folder.path / "grid" / name)
    refused = sum(len(part.data.rejected) for part in parts.values()) if whole and not opened.config.whole else 0
    note = f"Series left out of every cell because they could not be read completely: {refused}."
    return parts, (note,) if refused else ()


def guard(refs: Iterable[SliceRef]) -> None:
    """Refuse slices of a set that must not influence a choice (ConfigError)."""
    if odd := sorted({str(ref.set_name) for ref in refs if ref.set_name not in READ}):
        raise ConfigError(
            f"The score grid was given slices of {', '.join(odd)}, but may read validate and develop only."
        )


def _criterion(table: pd.DataFrame, criterion: str) -> str:
    for name in (criterion, "auroc"):
        if table[name].notna().any():
            return name
    raise ConfigError(
        f"No cell of the grid has {criterion}. Import labels of normal and abnormal scans (and masks for pixel "
        "criteria)."
    )


def _keep(result: GridResult, opened: OpenRun) -> None:
    folder = opened.folder
    folder.write_text("grid/grid.csv", result.table.to_csv(index=False))
    folder.write_text("grid/best.yaml", result.snippet())
    parent = folder.read("mlflow.json")["run_id"]
    with track(opened.settings, opened.route, "grid", parent=parent, system_metrics=False) as tracked:
        tracked.log_table(result.table, "grid")
        tracked.log_text(result.snippet(), "best.yaml")
        figures = {name: result.best_row[name] for name in FIGURES}
        tracked.log_metrics({f"best/{name}": value for name, value in figures.items() if np.isfinite(value)})
        tracked.log_tags({"criterion": result.criterion, "cells": str(len(result.table))})
