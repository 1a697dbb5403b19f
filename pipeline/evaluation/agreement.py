"""Agreement of two readers of the same scans beyond chance: Cohen's kappa (Educ Psychol Meas 1960, 20:37)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from sklearn.metrics import cohen_kappa_score

from pipeline.config import Config
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig


class Agreement(Config):
    """Kappa with its patient-bootstrap interval.

    Attributes:
        kappa: None if undefined; `note` says why.
        scans, same: number of scans that two readers have read, and of those on which they agreed.
    """

    kappa: Estimate | None
    scans: int
    same: int
    note: str = ""


def reader_agreement(
    first: Sequence[str], second: Sequence[str], patient: Sequence[str], config: EvaluationConfig
) -> Agreement:
    """Compare the outcomes of two readers per scan; which reader was first varies from scan to scan.

    Args:
        first, second: outcomes [n].
        patient: patient of each scan [n].
        config: resamples, confidence and seed.
    """
    outcomes, same = sorted({*first, *second}), int(np.sum(np.array(first) == np.array(second)))
    counts = {"scans": len(first), "same": same}
    if not len(first):
        return Agreement(kappa=None, note="No scan was read by two readers.", **counts)
    if len(outcomes) < 2:
        return Agreement(
            kappa=None,
            note=f"Every decision was {outcomes[0]}, so chance agreement is 1 and kappa is undefined.",
            **counts,
        )
    value = float(cohen_kappa_score(first, second, labels=outcomes))
    tables = patient_tables(first, second, patient, outcomes)
    if len(tables) < 2:
        return Agreement(kappa=Estimate(value=value, note="one patient: no interval"), **counts)
    bootstrap = PatientBootstrap.draw(np.zeros(len(tables), int), config)
    (estimate,) = bootstrap.estimates(bootstrap.sample(lambda w: kappas(w, tables), tables.size))
    return Agreement(kappa=estimate.model_copy(update={"value": value}), **counts)


def patient_tables(
    first: Sequence[str], second: Sequence[str], patient: Sequence[str], outcomes: Sequence[str]
) -> np.ndarray:
    """Return each patient's contingency table of the two readers' outcomes [P, K, K]."""
    codes = np.unique(np.asarray(patient), return_inverse=True)[1]
    tables = np.zeros((codes.max() + 1, len(outcomes), len(outcomes)))
    np.add.at(
        tables,
        cast(Any, (codes, [outcomes.index(word) for word in first], [outcomes.index(word) for word in second])),
        1,
    )
    return tables


def kappas(weights: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Return kappa under patient weights [r, P] as [r, 1]; NaN if there is only one outcome."""
    table = np.tensordot(weights, tables, axes=1)
    total = table.sum(axis=(1, 2))
    observed = np.trace(table, axis1=1, axis2=2) / total
    chance = (table.sum(axis=1) * table.sum(axis=2)).sum(axis=1) / total**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)[:, None]
