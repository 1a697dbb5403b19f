"""The pixel alpha, chosen once, on develop, among thresholds that calibrate normals gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pipeline.config import Config
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.pixel_metrics import PixelCase, SliceTallies, dice_of, split_pixels, usable


class AlphaChoice(Config):
    """The pixel alpha that develop chose.

    Attributes:
        alpha: share of normal in-body pixels above the threshold.
        threshold: of the calibrate normals at `alpha`.
        dice: pooled develop Dice by alpha, the whole grid.
        slices, patients: what the choice rests on.
    """

    alpha: float
    threshold: float
    dice: dict[float, float]
    slices: int
    patients: int

    @property
    def sentence(self) -> str:
        """One line for the report."""
        tried = ", ".join(f"{alpha:g}: {dice:.3f}" for alpha, dice in sorted(self.dice.items()))
        return (
            f"Pixel threshold {self.threshold:.4g} = {100 * (1 - self.alpha):g} % quantile of in-body pixels of "
            f"calibrate normals; alpha {self.alpha:g} chosen on {self.slices} develop slices of {self.patients} "
            f"patients (Dice {tried})."
        )


def choose_alpha(cases: Iterable[PixelCase], thresholds: Mapping[float, float], map_name: str = "model") -> AlphaChoice:
    """Choose the alpha whose threshold gives the best pooled Dice on labelled develop slices; ties go to the smaller.

    Args:
        cases: develop slices, normal ones included, read once.
        thresholds: by alpha, quantiles of calibrate normals (`detection.pixels.PixelQuantiles`).
        map_name: which map of the cases.

    Raises:
        ConfigError: no threshold, or no such map.
        EmptySelection: no lesion pixel.
    """
    if not thresholds:
        raise ConfigError("No pixel alpha was given to choose from. Give a grid such as 0.001, 0.01, 0.05.")
    tallies = {alpha: SliceTallies(value) for alpha, value in sorted(thresholds.items())}
    slices = 0
    for case in usable(cases, {}):
        normal, mask = split_pixels(case)
        seen = np.where(np.asarray(case.body, bool), _map(case, map_name), -np.inf)
        slices += 1
        for tally in tallies.values():
            tally.add(case.patient_id, seen[normal], seen[mask])
    dice = {alpha: float(dice_of(tally.rows().sum(axis=0)[None])[0, 0]) for alpha, tally in tallies.items() if slices}
    if not dice or not np.isfinite(list(dice.values())).all():
        raise EmptySelection(f"{slices} develop slices hold no lesion pixel to choose alpha by. Give masks.")
    best = max(dice, key=lambda alpha: dice[alpha])
    patients = len(tallies[best].sums)
    return AlphaChoice(alpha=best, threshold=thresholds[best], dice=dice, slices=slices, patients=patients)


def _map(case: PixelCase, name: str) -> np.ndarray:
    if name not in case.maps:
        raise ConfigError(f"Slice {case.slice_id} has the maps {sorted(case.maps)}, not {name!r}. Name one of them.")
    return np.asarray(case.maps[name])
