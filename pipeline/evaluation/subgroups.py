"""Results by scanner, site, sex and age band, to show where the model is worse or raises more false alarms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd

from pipeline.config import Config
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.ranking import estimate_auroc
from pipeline.evaluation.realised import RealisedRate, realised_fpr
from pipeline.evaluation.table import ScoreTable

GROUPINGS = ("scanner", "site", "sex", "age_band")
UNSTATED = "not stated"


class Subgroup(Config):
    """One value of one attribute.

    Attributes:
        attribute, value: e.g. sex, F; "not stated" if the file does not give it.
        units, patients, normal, abnormal: counts.
        auroc: None if the group is too small; `note` says so.
        fpr: realised at the threshold; None without a threshold or with too few normal patients.
    """

    attribute: str
    value: str
    units: int
    patients: int
    normal: int
    abnormal: int
    auroc: Estimate | None = None
    fpr: RealisedRate | None = None
    note: str = ""


def subgroups(
    table: ScoreTable, config: EvaluationConfig, *, column: str = "score", threshold: float | None = None
) -> tuple[Subgroup, ...]:
    """Return one row for each value of each attribute that the table has, largest group first.

    A group with fewer than `config.smallest_group` patients of either class gets no AUROC, and with fewer normal
    patients no false-positive rate: it is listed as too small, never left out. Intervals are not corrected for the
    number of groups.

    Args:
        table: validated scores; attributes with a single value are left out.
        config: smallest_group, resamples, seed.
        column: column of the score.
        threshold: a unit is flagged when its score exceeds it.
    """
    return tuple(_group(table, *which, config, column, threshold) for which in _groups(table))


def _groups(table: ScoreTable) -> Iterator[tuple[str, str, np.ndarray]]:
    for attribute in GROUPINGS:
        if attribute not in table.frame.columns:
            continue
        stated = table.frame[attribute].astype(object)
        values = stated.where(stated.notna() & (stated.astype(str) != ""), UNSTATED).astype(str)
        sizes = values.value_counts()
        if len(sizes) > 1:
            for value in sorted(sizes.index, key=cast(Any, lambda v, s=sizes: (v == UNSTATED, -s[v], v))):
                yield attribute, value, (values == value).to_numpy()


def _group(
    table: ScoreTable,
    attribute: str,
    value: str,
    inside: np.ndarray,
    config: EvaluationConfig,
    column: str,
    threshold: float | None,
) -> Subgroup:
    scores, abnormal = table.scores(column)[inside], table.abnormal[inside]
    patient = np.unique(table.patient[inside], return_inverse=True)[1]
    ill, well = len(np.unique(patient[abnormal])), len(np.unique(patient[~abnormal]))
    least = config.smallest_group
    facts = {"units": len(scores), "patients": int(patient.max()) + 1, "normal": int(np.sum(~abnormal))}
    small = [f"{n} {kind} patients" for n, kind in ((ill, "abnormal"), (well, "normal")) if n < least]
    rate = threshold is not None and well >= least
    return Subgroup(
        attribute=attribute,
        value=value,
        **facts,
        abnormal=int(abnormal.sum()),
        auroc=None if small else estimate_auroc(scores, abnormal, patient, config),
        fpr=realised_fpr(scores[~abnormal], patient[~abnormal], cast(float, threshold), config) if rate else None,
        note=f"too small: {' and '.join(small)}, {least} needed" if small else "",
    )


def subgroup_frame(groups: tuple[Subgroup, ...]) -> pd.DataFrame:
    """Return the rows as a frame of text and counts, for CSV and Markdown."""
    return pd.DataFrame([_shown(group) for group in groups])


def _shown(group: Subgroup) -> dict[str, object]:
    fpr = group.fpr
    return {
        "attribute": group.attribute,
        "value": group.value,
        "patients": group.patients,
        "normal": group.normal,
        "abnormal": group.abnormal,
        "AUROC": group.auroc.text() if group.auroc else group.note,
        "realised FPR": fpr.rate.text() if fpr else "-",
    }
