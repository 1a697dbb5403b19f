"""Flagging of a night's findings: by false-positive rate, by false-discovery rate, or by capacity.

The rules use only the findings' p-values, so findings of several routes may be mixed.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
from pydantic import Field

from pipeline.config import Config
from pipeline.detection.conformal import count_allowed_exceedances
from pipeline.errors import ConfigError
from pipeline.types import Finding

FdrMethod = Literal["bh", "by"]
EPSILON = 1e-9  # p-values are multiples of 1/(n + 1), so this only absorbs rounding


class FlaggingConfig(Config):
    """Flagging rule of a night and its parameters."""

    rule: Literal["fpr", "fdr", "capacity"] = Field("fpr", description="rule that flags findings")
    alpha: float = Field(0.05, gt=0, lt=1, description="for `fpr`: target false-positive rate")
    q: float = Field(0.1, gt=0, lt=1, description="for `fdr`: target false-discovery rate")
    method: FdrMethod = Field("bh", description="for `fdr`: Benjamini-Hochberg, or Benjamini-Yekutieli")
    capacity: int = Field(20, ge=0, description="for `capacity`, and for `fdr` if a discovery is impossible")


@dataclass(frozen=True, slots=True)
class Flagged:
    """A night's findings with `flagged` and `rule` set, in the given order, and one sentence on the result."""

    findings: tuple[Finding, ...]
    rule: str
    statement: str

    @property
    def count(self) -> int:
        """Number of flagged findings."""
        return sum(bool(finding.flagged) for finding in self.findings)


@dataclass(frozen=True, slots=True)
class FdrPlan:
    """The discoveries that are possible at a false-discovery rate of q, computed before any p-value is seen.

    Attributes:
        patients: m, the hypotheses of the night.
        n: calibration units of the smallest calibration among the routes.
        q, method: the rate, and Benjamini-Hochberg ("bh") or Benjamini-Yekutieli ("by").
        smallest: the smallest number of discoveries that n, m and q allow; None if even all m are too few.
    """

    patients: int
    n: int
    q: float
    method: FdrMethod
    smallest: int | None


def flag(findings: Sequence[Finding], config: FlaggingConfig) -> Flagged:
    """Flag a night by the configured rule."""
    match config.rule:
        case "fpr":
            return flag_by_fpr(findings, config.alpha)
        case "fdr":
            return flag_by_fdr(findings, config.q, config.method, capacity=config.capacity)
        case "capacity":
            return flag_by_capacity(findings, config.capacity)


def flag_by_fpr(findings: Sequence[Finding], alpha: float) -> Flagged:
    """Flag findings above their route's threshold for a false-positive rate of alpha: p <= k / (n + 1).

    Raises:
        TooFewNormals: a route's calibration is too small for alpha.
        ConfigError: a finding has no p-value, or alpha is out of range.
    """
    _require_p(findings)
    chosen = [
        cast(float, f.p_value) * (f.n_calibration + 1) <= count_allowed_exceedances(alpha, f.n_calibration) + EPSILON
        for f in findings
    ]
    count = sum(chosen)
    statement = f"{count} of {len(findings)} flagged at a target false-positive rate of {alpha:g} {_worth(findings)}."
    return _with(findings, chosen, f"fpr {alpha:g}", statement)


def flag_by_capacity(findings: Sequence[Finding], capacity: int) -> Flagged:
    """Flag the `capacity` most unusual findings: smallest p-value first.

    Ties, which are common with small calibrations, are ordered by raw score within a route (alternating routes, since
    raw scores of two detectors are not comparable), then by a hash of the study. Findings without a p-value come last.

    Raises:
        ConfigError: capacity is negative.
    """
    if capacity < 0:
        raise ConfigError(f"The review capacity must be 0 or more, not {capacity}.")
    order = review_order(findings)
    chosen = set(order[:capacity])
    statement = f"The {min(capacity, len(order))} most unusual of {len(findings)} flagged (review capacity {capacity})."
    return _with(findings, [i in chosen for i in range(len(findings))], f"capacity {capacity}", statement)


def flag_by_fdr(findings: Sequence[Finding], q: float, method: FdrMethod = "bh", *, capacity: int) -> Flagged:
    """Flag findings so that at most a share q of the flagged patients is expected to be normal.

    There is one p-value per patient (the smallest of its findings times their number: Bonferroni), then
    Benjamini-Hochberg on these one-sided conformal p-values (Bates et al. 2023, theorem 2: they are positively
    dependent, so it is valid), or Benjamini-Yekutieli, which is valid under any dependence. If a single discovery is
    impossible (n + 1 < m / q), the review capacity decides instead, and `rule` and `statement` say so.

    Raises:
        ConfigError: a finding has no p-value, or q is out of range.
    """
    plan = plan_fdr(findings, q, method)
    if plan.smallest != 1 and findings:
        return _instead(flag_by_capacity(findings, capacity), plan)
    merged, adjusted = _patient_p_values(findings)
    if not merged:
        return Flagged((), f"fdr {q:g} ({method})", "No findings.")
    cut = discovery_cut(np.array(list(merged.values())), q, method)
    chosen = [p <= cut + EPSILON for p in adjusted]
    patients = sum(p <= cut + EPSILON for p in merged.values())
    statement = (
        f"{patients} of {len(merged)} patients flagged at a false-discovery rate of {q:g} "
        f"({'Benjamini-Hochberg' if method == 'bh' else 'Benjamini-Yekutieli'}) {_worth(findings)}."
    )
    return _with(findings, chosen, f"fdr {q:g} ({method})", statement)


def plan_fdr(findings: Sequence[Finding], q: float, method: FdrMethod = "bh") -> FdrPlan:
    """Compute the possible discoveries in advance: r discoveries need r merged p-values of at most r q / m.

    The smallest merged p-value of a patient with j findings is j / (n + 1), with n of the best of its routes.
    """
    if not 0 < q < 1:
        raise ConfigError(f"The false-discovery rate must be strictly between 0 and 1, not {q}.")
    _require_p(findings)
    groups: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.patient_id].append(finding)
    m = len(groups)
    best = np.sort([len(group) / (max(f.n_calibration for f in group) + 1) for group in groups.values()])
    ranks = np.arange(1, m + 1)
    possible = ranks[best <= ranks * _effective(q, m, method) / max(m, 1) + EPSILON]
    smallest = int(possible[0]) if len(possible) else None
    return FdrPlan(m, min((f.n_calibration for f in findings), default=0), q, method, smallest)


def discovery_cut(p_values: np.ndarray, q: float, method: FdrMethod = "bh") -> float:
    """Return the largest p-value that is a discovery, or -inf without discoveries."""
    from scipy.stats import false_discovery_control

    discovered = false_discovery_control(np.minimum(p_values, 1), method=method) <= q + EPSILON
    return float(p_values[discovered].max()) if discovered.any() else -math.inf


def review_order(findings: Sequence[Finding]) -> list[int]:
    """Return the indices of the findings in the order in which they should be read."""
    p = [math.inf if f.p_value is None else f.p_value for f in findings]
    tied: dict[tuple[str, float], list[int]] = defaultdict(list)
    for i in sorted(range(len(findings)), key=lambda i: (-findings[i].score, _hash(findings[i]))):
        tied[findings[i].route, p[i]].append(i)
    turn = {i: position for group in tied.values() for position, i in enumerate(group)}
    return sorted(range(len(findings)), key=lambda i: (p[i], turn[i], _hash(findings[i])))


def _hash(finding: Finding) -> bytes:
    return hashlib.sha256(f"{finding.study_id} {finding.route}".encode()).digest()


def _effective(q: float, m: int, method: FdrMethod) -> float:
    return q if method == "bh" else q / max(math.fsum(1 / i for i in range(1, m + 1)), 1.0)


def _patient_p_values(findings: Sequence[Finding]) -> tuple[dict[str, float], list[float]]:
    """Return each patient's Bonferroni-merged p-value, and each finding's p-value times its patient's findings."""
    count: dict[str, int] = defaultdict(int)
    for finding in findings:
        count[finding.patient_id] += 1
    adjusted = [min(1.0, cast(float, finding.p_value) * count[finding.patient_id]) for finding in findings]
    merged: dict[str, float] = {}
    for finding, p in zip(findings, adjusted, strict=True):
        merged[finding.patient_id] = min(p, merged.get(finding.patient_id, 1.0))
    return merged, adjusted


def _instead(by_capacity: Flagged, plan: FdrPlan) -> Flagged:
    need = math.ceil(plan.patients / _effective(plan.q, plan.patients, plan.method)) - 1
    few = "or all together" if plan.smallest is None else f"only {plan.smallest} or more together"
    statement = (
        f"At a false-discovery rate of {plan.q:g}, {plan.n} calibration normals cannot support a single discovery "
        f"among {plan.patients} patients ({few}; {need} normals could). Capacity decides: {by_capacity.statement}"
    )
    rule = f"{by_capacity.rule} (fdr {plan.q:g} impossible)"
    return Flagged(tuple(replace(f, rule=rule) for f in by_capacity.findings), rule, statement)


def _require_p(findings: Sequence[Finding]) -> None:
    if missing := sum(f.p_value is None or math.isnan(f.p_value) for f in findings):
        raise ConfigError(
            f"{missing} of {len(findings)} findings have no p-value, since their detector is not calibrated. "
            "Calibrate it, "
            "or flag by review capacity."
        )


def _worth(findings: Sequence[Finding]) -> str:
    return f"({'; '.join(sorted({f.guarantee for f in findings if f.guarantee})) or 'guarantee not stated'})"


def _with(findings: Sequence[Finding], chosen: Sequence[bool], rule: str, statement: str) -> Flagged:
    marked = tuple(replace(f, flagged=bool(c), rule=rule) for f, c in zip(findings, chosen, strict=True))
    return Flagged(marked, rule, statement)
