"""Result tables: rows of metrics with intervals for models and controls, and verdicts."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.config import Config
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap, Sampled

Outcome = Literal["beats", "ties with", "does not beat", "loses to"]


class ScoreRow(Config):
    """One line of a result table: a model or a control and its metrics."""

    name: str
    control: bool
    metrics: dict[str, Estimate]


class Verdict(Config):
    """Model against control, by the paired patient bootstrap of the difference of one metric."""

    model: str
    control: str
    metric: str
    outcome: Outcome
    difference: Estimate

    @property
    def sentence(self) -> str:
        """Return one line for the report."""
        tail = ": the interval includes 0" if self.outcome == "does not beat" else ""
        return (
            f"{self.model} {self.outcome} the control {self.control}: {self.metric} difference "
            f"{self.difference.text()}, paired patient bootstrap{tail}."
        )


class ResultTable(Config):
    """Results of one selection, at image level or at pixel level.

    Attributes:
        title: name of the selection, e.g. "all slices".
        level: slice level, study level, image level or pixel level.
        counts: sample sizes, e.g. units, patients, normal, abnormal.
        interval: method of the intervals.
        rows: models first, then the controls.
        verdicts: every model against every control.
        notes: notes on how to read the results.
    """

    title: str
    level: str
    counts: dict[str, int]
    interval: str
    rows: tuple[ScoreRow, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    def row(self, name: str) -> ScoreRow:
        """Return the line of one model or control; KeyError if it does not exist."""
        return {row.name: row for row in self.rows}[name]


def judge(
    bootstrap: PatientBootstrap, metric: str, model: tuple[str, Sampled], control: tuple[str, Sampled]
) -> Verdict:
    """Compare the first statistic of a model with that of a control on the same resamples."""
    difference = Sampled.join([model[1], control[1]]).difference(0, len(model[1].values))
    (estimate,) = bootstrap.estimates(difference)
    tied = bool(np.all(np.nan_to_num(difference.replicates) == 0)) and estimate.value == 0
    outcome: Outcome = "ties with" if tied else _outcome(estimate)
    return Verdict(model=model[0], control=control[0], metric=metric, outcome=outcome, difference=estimate)


def _outcome(difference: Estimate) -> Outcome:
    if difference.low is not None and difference.low > 0:
        return "beats"
    if difference.high is not None and difference.high < 0:
        return "loses to"
    return "does not beat"
