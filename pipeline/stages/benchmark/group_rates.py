"""False alarms of each scanner on phantom patients, with the pooled threshold and with one of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.detection.conformal import Calibration, Threshold, Unit
from pipeline.detection.mondrian import count_needed, find_reference
from pipeline.dicom.phantom.patient import PhantomPatient, make_patient

SIZE, FILTER = 64, 3  # pixels
WINDOW = (-160.0, 240.0)  # HU: soft tissue
MARGIN = 20
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class GroupRate:
    """One scanner: calibration normals, fresh normals, and the share of these that either threshold flags.

    `pooled` and `own` are false-positive rates with their exact binomial 95 % intervals; `promised`: the range of the
    realised rate in 95 % of calibrations with so many normals; `own_threshold` is False where the scanner has too few,
    so that the pooled threshold is used.
    """

    scanner: str
    n: int
    fresh: int
    pooled: tuple[float, float, float]
    own: tuple[float, float, float]
    promised: tuple[float, float]
    own_threshold: bool


def measure_group_rates(patients: int, fresh: int, alpha: float, seed: int = 0) -> list[GroupRate]:
    """Return a row for each scanner of the CT phantoms, and one for all.

    The score is the mean absolute difference between a slice and its median-filtered copy, which keeps anatomy and
    loses noise: it depends on the scanner, as every residual does in which noise is left. All patients
    are normal and independent.

    Args:
        patients: that calibrate.
        fresh: that are flagged or not.
        alpha: promised false-positive rate.
        seed: of the patients.
    """
    first = seed * 10**6
    names, units = {}, []
    for number, one in enumerate(_make(first, patients)):
        names[f"{number}"] = f"scanner {one.scanner.model}"
        units.append(Unit(f"{number}", f"{number}", _score(one)))
    calibration = Calibration.fit(units, groups=names, group_least=count_needed(alpha, MARGIN))
    scores: dict[str, list[float]] = defaultdict(list)
    for one in _make(first + patients, fresh):
        scores[f"scanner {one.scanner.model}"].append(_score(one))
    return _count(calibration, scores, alpha)


def _count(calibration: Calibration, scores: dict[str, list[float]], alpha: float) -> list[GroupRate]:
    pooled, sizes = calibration.threshold(alpha), {one.name: len(one.scores) for one in calibration.groups}
    rows, totals = [], [0, 0]
    for name in sorted(scores):
        reference, _ = find_reference(calibration, name)
        values, has_own = np.array(scores[name]), reference is not calibration
        limit = reference.threshold(alpha)
        alarms = [int((values > level).sum()) for level in (pooled.value, limit.value)]
        totals = [total + count for total, count in zip(totals, alarms, strict=True)]
        rates = [_rate(count, len(values)) for count in alarms]
        rows.append(GroupRate(name, sizes.get(name, 0), len(values), rates[0], rates[1], _range(limit), has_own))
    every = sum(len(values) for values in scores.values())
    rates = [_rate(count, every) for count in totals]
    return [*rows, GroupRate("all", calibration.n, every, rates[0], rates[1], _range(pooled), True)]


def _range(threshold: Threshold) -> tuple[float, float]:
    return threshold.interval or (0.0, 1.0)


def _rate(count: int, total: int) -> tuple[float, float, float]:
    from scipy.stats import binomtest

    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
    return count / total, float(interval.low), float(interval.high)


def _make(first: int, count: int) -> Iterable[PhantomPatient]:
    return (make_patient(first + index, "CT", None, SIZE) for index in range(count))


def _score(patient: PhantomPatient) -> float:
    from scipy.ndimage import median_filter

    scanner = patient.scanner
    image = np.clip(patient.stored[0] * scanner.slope + scanner.intercept, *WINDOW)
    return float(np.abs(image - median_filter(image, FILTER)).mean())


def show_group_rates(rows: Iterable[GroupRate]) -> list[dict[str, Any]]:
    """Return the rows for a terminal."""
    return [
        {
            "group": one.scanner,
            "calibration": one.n,
            "fresh": one.fresh,
            "promised": f"{one.promised[0]:.1%} to {one.promised[1]:.1%}",
            "pooled": _words(one.pooled),
            "own": _words(one.own) + ("" if one.own_threshold else " (pooled)"),
        }
        for one in rows
    ]


def _words(rate: tuple[float, float, float]) -> str:
    return f"{rate[0]:.1%} ({rate[1]:.1%} to {rate[2]:.1%})"
