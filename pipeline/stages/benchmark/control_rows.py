"""Trivial controls of a benchmark: their rows in the table, and each method against the strongest control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.compare import Comparison, compare_seeds
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.cross_fit import best_control, compare_folds, mean_estimate
from pipeline.evaluation.matched import GIVEN, IN_STRATA
from pipeline.evaluation.report import EvaluationReport
from pipeline.evaluation.results import ResultTable
from pipeline.evaluation.table import CONTROL, ScoreTable, select_central
from pipeline.stages.choose.compare_runs import join_scores, read_stored_scores
from pipeline.stages.run.run_folder import RunFolder

SHOWN_CONTROLS = 3  # controls listed per selection
NEGATIVE = "negative "


def compare_with_best_control(
    folders: Sequence[RunFolder], set_name: str, name: str, folds: bool = False
) -> Comparison:
    """Compare a method with the strongest trivial control of the same units, by the paired bootstrap.

    The control and its sign are chosen on these labels, which favours the control, never the model. Central slices
    are used if there are any, since over all slices the position in the head dominates.

    Args:
        folders: its runs, one per training seed or per fold; the mean of their AUROC is compared.
        set_name: develop or test.
        name: name of the method.
        folds: whether each run holds out different patients.

    Raises:
        ArtefactError: a run was not evaluated on this set.
        ConfigError: runs of several seeds were evaluated on different units.
        EmptySelection: too few units of a class.
    """
    config = folders[0].read_config().evaluation
    frames = [read_stored_scores(folder, set_name) for folder in folders]
    if folds:
        return _over_folds([_central(frame, config) for frame in frames], name, config)
    frame, seeds = _with_seeds(frames)
    table = ScoreTable.from_frame(_central(frame, config), seeds)
    named = f"{name}, mean of {len(seeds)} seeds" if len(seeds) > 1 else name
    (both,), control = _with_best_control([table])
    return compare_seeds(both, named, seeds, control, config)


def _over_folds(frames: Sequence[pd.DataFrame], name: str, config: EvaluationConfig) -> Comparison:
    both, control = _with_best_control([ScoreTable.from_frame(frame) for frame in frames])
    return compare_folds(both, f"{name}, mean of {len(frames)} folds", "score", control, config)


def _with_best_control(tables: Sequence[ScoreTable]) -> tuple[list[pd.DataFrame], str]:
    """Return the tables' frames with the overall strongest control as the only one, and its column."""
    best, sign = best_control(tables, [column for column in tables[0].columns if column.startswith(CONTROL)])
    column = f"control {NEGATIVE if sign < 0 else ''}{best.removeprefix(CONTROL)}"
    return [_without_controls(table.frame).assign(**{column: sign * table.frame[best]}) for table in tables], column


def _central(frame: pd.DataFrame, config: EvaluationConfig) -> pd.DataFrame:
    several = "relative_position" in frame and frame["relative_position"].nunique() > 1
    return select_central(frame, config) if several else frame


def _without_controls(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=[column for column in frame if str(column).startswith(CONTROL)])


def _with_seeds(frames: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the first frame with the score of every frame in its own column, and these columns."""
    columns = {
        f"seed {place}": join_scores(frames[0], frame, ("first", "this"))["this"] for place, frame in enumerate(frames)
    }
    return frames[0].drop(columns="score").assign(**columns), tuple(columns)


def strongest_controls(reports: Sequence[EvaluationReport]) -> dict[str, dict[str, Estimate]]:
    """Return the metrics of the strongest controls of each selection, in the order of the image-level metrics.

    Args:
        reports: of one run, or of one run per fold, whose metrics are averaged.
    """
    strongest: dict[str, dict[str, Estimate]] = {}
    for table in reports[0].tables:
        same = [one for report in reports for one in report.tables if _alike(one, table)]
        pixels = table.level == "pixel level"
        central = "auroc_central" if table.title.startswith("central") else "auroc"
        matched = {name: name for name in table.rows[0].metrics if name.startswith((IN_STRATA, GIVEN))}
        names = {"pixel_ap": "AP", "oracle_dice": "best Dice (oracle)"} if pixels else {central: "AUROC"} | matched
        lines = {name: {k: mean for k, v in names.items() if (mean := _mean(same, name, v))} for name in _names(same)}
        ranked = sorted((name for name in lines if lines[name]), key=lambda n: -next(iter(lines[n].values())).value)
        for name in ranked[:SHOWN_CONTROLS]:
            strongest.setdefault(name, {}).update(lines[name])
    return strongest


def _alike(one: ResultTable, other: ResultTable) -> bool:
    return (one.level, one.title) == (other.level, other.title)


def _names(tables: Sequence[ResultTable]) -> Iterator[str]:
    """Yield the controls that all tables have, first unchanged, then with flipped sign."""
    plain = [row.name for row in tables[0].rows if row.control and not row.name.startswith(NEGATIVE)]
    yield from plain
    if tables[0].level != "pixel level":
        yield from (f"{NEGATIVE}{name}" for name in plain)


def _mean(tables: Sequence[ResultTable], name: str, metric: str) -> Estimate | None:
    """Return a control's metric, averaged over tables; None if one of them lacks it."""
    estimates = [_figure(table, name, metric) for table in tables]
    if any(estimate is None for estimate in estimates):
        return None
    return mean_estimate([estimate for estimate in estimates if estimate is not None])


def _figure(table: ResultTable, name: str, metric: str) -> Estimate | None:
    """Return a control's metric; for a flipped sign that is not in the table, derive it from the plain one."""
    rows = {row.name: row.metrics for row in table.rows if row.control}
    if name in rows:
        return rows[name].get(metric)
    plain = rows.get(name.removeprefix(NEGATIVE), {}).get(metric) if name.startswith(NEGATIVE) else None
    return None if plain is None else _turned(plain)


def _turned(area: Estimate) -> Estimate:
    low, high = (None if bound is None else 1 - bound for bound in (area.high, area.low))
    return area.model_copy(update={"value": 1 - area.value, "low": low, "high": high})
