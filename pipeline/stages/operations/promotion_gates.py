"""Gates that a challenger passes before it may become champion, and what each of them measured.

Every gate is a line with its number, its limit and the patients behind it. A gate whose set is too small to decide is
not passed, and says how many patients it would need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.stats import betabinom, norm

from pipeline.config import Config
from pipeline.detection.conformal import Calibration, count_allowed_exceedances
from pipeline.errors import EmptySelection, TooFewNormals
from pipeline.evaluation.compare import Comparison, compare, structural_components
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.subgroups import GROUPINGS

CHAMPION, CHALLENGER = "champion", "challenger"
POWER = 0.8


class PromotionGates(Config):
    """What a challenger must show before it is promoted."""

    margin: float = Field(0.03, gt=0, lt=1, description="largest loss of AUROC that is accepted")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="one-sided level of the non-inferiority test")
    normal_patients: int = Field(20, ge=2, description="fewest normal patients of the gate set")
    abnormal_patients: int = Field(20, ge=2, description="fewest abnormal patients of the gate set")
    calibration_level: float = Field(
        0.01, gt=0, lt=1, description="calibration fails if normals of the gate set raise so unlikely many alarms"
    )
    subgroup_loss: float = Field(0.1, gt=0, le=1, description="largest loss of AUROC of any subgroup")
    subgroup_patients: int = Field(10, ge=2, description="a subgroup counts with so many patients of either class")
    slowdown: float = Field(1.5, gt=0, description="largest time per slice, relative to the champion's")
    shadow_nights: int = Field(14, ge=0, description="nights that the challenger scores again in shadow; 0: none")
    shadow_studies: int = Field(50, ge=1, description="fewest studies of those nights")
    shadow_flags: float = Field(0.05, ge=0, le=1, description="largest rise of the share of flagged studies in shadow")


@dataclass(frozen=True, slots=True)
class GateLine:
    """One gate: whether it is passed, and a sentence with its numbers."""

    gate: str
    passed: bool
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def judge_gate_set(
    frame: pd.DataFrame, gates: PromotionGates, calibration: Calibration | None, alpha: float, first: bool
) -> Iterator[GateLine]:
    """Yield the gates on the gate set: its size, AUROC, calibration and subgroups.

    Args:
        frame: units with `patient_id`, `label`, both scores (`champion`, `challenger`) and the groupings.
        gates: the limits.
        calibration: the challenger's.
        alpha: false-positive rate at which the challenger will flag.
        first: the route has no other champion, so nothing is compared.
    """
    patients = {label: part["patient_id"].nunique() for label, part in frame.groupby("label")}
    normal, abnormal = patients.get("normal", 0), patients.get("abnormal", 0)
    enough = normal >= gates.normal_patients and abnormal >= gates.abnormal_patients
    yield GateLine(
        "size",
        enough,
        f"The gate set has {normal} normal and {abnormal} abnormal patients; {gates.normal_patients} and "
        f"{gates.abnormal_patients} are needed.",
    )
    if not first:
        yield judge_auroc(frame, gates)
        yield judge_subgroups(frame, gates)
    yield judge_calibration(frame, gates, calibration, alpha)


def judge_auroc(frame: pd.DataFrame, gates: PromotionGates) -> GateLine:
    """Return whether the challenger's AUROC is not inferior; if not, how many patients the margin would need."""
    config = EvaluationConfig()
    try:
        result = compare(frame, CHALLENGER, CHAMPION, config, margin=gates.margin, alpha=gates.alpha)
    except EmptySelection as error:
        return GateLine("AUROC", False, str(error))
    test = result.non_inferiority
    passed = test is not None and test.non_inferior
    return GateLine("AUROC", passed, result.sentence + ("" if passed else _patients_needed(result, gates)))


def _patients_needed(result: Comparison, gates: PromotionGates) -> str:
    reach = float(norm.ppf(1 - gates.alpha) + norm.ppf(POWER)) * result.standard_error / gates.margin
    needed = int(np.ceil(result.patients * reach**2))
    worse = result.difference + norm.ppf(1 - gates.alpha) * result.standard_error <= -gates.margin
    if worse or needed <= result.patients:  # more patients would not help
        return ""
    return (
        f" {result.patients} patients are few for this margin: if both were equally good, about {needed} would show "
        f"it with {POWER:.0%} power."
    )


def judge_subgroups(frame: pd.DataFrame, gates: PromotionGates) -> GateLine:
    """Return whether any scanner, site, sex or age band with enough patients loses more than the limit."""
    losses: dict[str, float] = {}
    small = 0
    for grouping in GROUPINGS:
        for value, part in frame.groupby(grouping):
            counts = part.groupby("label")["patient_id"].nunique()
            if min(counts.get("normal", 0), counts.get("abnormal", 0)) < gates.subgroup_patients:
                small += 1
                continue
            abnormal = (part["label"] == "abnormal").to_numpy()
            areas = [_auroc(part[name].to_numpy(float), abnormal) for name in (CHAMPION, CHALLENGER)]
            losses[f"{grouping} {value or 'unknown'}"] = areas[0] - areas[1]
    skipped = f" {small} subgroups are too small to count." if small else ""
    if not losses:
        return GateLine(
            "subgroups", True, f"No subgroup has {gates.subgroup_patients} patients of either class.{skipped}"
        )
    worst = max(losses, key=lambda name: losses[name])
    return GateLine(
        "subgroups",
        losses[worst] <= gates.subgroup_loss,
        f"Of {len(losses)} subgroups, {worst} changes most for the worse: AUROC {-losses[worst]:+.3f}; a loss of "
        f"{gates.subgroup_loss:g} is the limit.{skipped}",
    )


def _auroc(scores: np.ndarray, abnormal: np.ndarray) -> float:
    return float(structural_components(scores, abnormal)[0].mean())


def judge_calibration(
    frame: pd.DataFrame, gates: PromotionGates, calibration: Calibration | None, alpha: float
) -> GateLine:
    """Return whether normals of the gate set, one unit per patient, raise no more alarms than was promised."""
    if calibration is None:
        return GateLine("calibration", False, "The challenger is not calibrated. Run nightread train CONFIG.")
    if calibration.design == "clustered":
        return GateLine("calibration", True, f"The calibration is {calibration.guarantee}, so nothing is checked.")
    normals = frame[frame["label"] == "normal"].sort_values("unit_id").drop_duplicates("patient_id")
    if normals.empty:
        return GateLine("calibration", False, "The gate set has no normal patients, on which calibration is checked.")
    try:
        allowed = count_allowed_exceedances(alpha, calibration.n)
    except TooFewNormals as error:
        return GateLine("calibration", False, str(error))
    value = calibration.threshold(alpha).value
    alarms, n = int((normals[CHALLENGER] > value).sum()), len(normals)
    p_value = float(betabinom.sf(alarms - 1, n, allowed, calibration.n + 1 - allowed))
    return GateLine(
        "calibration",
        p_value >= gates.calibration_level,
        f"{alarms} of {n} normal patients are flagged at a promised rate of {alpha:.1%}; so many or more have "
        f"probability {p_value:.2g} if the promise holds, and {gates.calibration_level:g} is the limit.",
    )


def judge_speed(seconds: Sequence[float], slices: int, gates: PromotionGates) -> GateLine:
    """Return whether the challenger needs no more than so many times the champion's time for the same slices."""
    ratio = seconds[1] / max(seconds[0], 1e-9)
    return GateLine(
        "speed",
        ratio <= gates.slowdown,
        f"{1000 * seconds[1] / slices:.1f} ms per slice against {1000 * seconds[0] / slices:.1f} ms: {ratio:.2f} "
        f"times; {gates.slowdown:g} is the limit.",
    )


def judge_shadow(flags: pd.DataFrame, lost: int, gates: PromotionGates) -> GateLine:
    """Return whether the challenger, on scans of the last nights, scores all that the champion scored, and flags alike.

    Args:
        flags: a row per study with `champion` and `challenger` (bool) and both scores (`scores_champion`, ...).
        lost: studies that the champion scored and the challenger cannot.
        gates: the limits.
    """
    if len(flags) < gates.shadow_studies:
        return GateLine(
            "shadow",
            False,
            f"{len(flags)} studies of the last {gates.shadow_nights} nights were scored by both; "
            f"{gates.shadow_studies} are needed. Wait for more nights, or lower shadow_studies or shadow_nights.",
        )
    before, after = float(flags[CHAMPION].mean()), float(flags[CHALLENGER].mean())
    both = int((flags[CHAMPION] & flags[CHALLENGER]).sum())
    return GateLine(
        "shadow",
        lost == 0 and after - before <= gates.shadow_flags,
        f"On {len(flags)} studies of the last {gates.shadow_nights} nights the challenger flags {after:.1%} and the "
        f"champion {before:.1%} ({both} by both); a rise of {gates.shadow_flags:.1%} is the limit. {lost} studies that "
        "the champion scored have no score of the challenger.",
    )
