"""Choice of the pixel alpha on develop, among thresholds from calibrate normals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pipeline.config import Config
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.pixel_metrics import PixelCase, SliceTallies, dice_of, split_pixels, usable


class AlphaChoice(Config):
    """The pixel alpha that was chosen on develop.

    Attributes:
        alpha: share of normal in-body pixels above the threshold.
        threshold: threshold from the calibrate normals at `alpha`.
        dice: pooled develop Dice by alpha, the whole grid.
        slices, patients: numbers of slices and patients behind the choice.
    """

    alpha: float
    threshold: float
    dice: dict[float, float]
    slices: int
    patients: int

    @property
    def sentence(self) -> str:
        """Return one line for the report."""
        tried = ", ".join(f"{alpha:g}: {dice:.3f}" for alpha, dice in sorted(self.dice.items()))
        return (
            f"Pixel threshold {self.threshold:.4g} = {100 * (1 - self.alpha):g} % quantile of in-body pixels of "
            f"calibrate normals; alpha {self.alpha:g} chosen on {self.slices} develop slices of {self.patients} "
            f"patients (Dice {tried})."
        )


def choose_alpha(cases: Iterable[PixelCase], thresholds: Mapping[float, float], map_name: str = "model") -> AlphaChoice:
    """Choose the alpha whose threshold gives the best pooled Dice on labelled develop slices; ties go to the smaller
    alpha.

    Args:
        cases: develop slices, including normal ones, iterated once.
        thresholds: by alpha, quantiles of calibrate normals (`detection.pixels.PixelQuantiles`).
        map_name: name of the map.

    Raises:
        ConfigError: there are no thresholds, or the map does not exist.
        EmptySelection: there are no lesion pixels.
    """
    if not thresholds:
        raise ConfigError("There are no pixel alphas to choose from. Give a grid such as 0.001, 0.01, 0.05.")
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
        raise EmptySelection(
            f"The {slices} develop slices have no lesion pixels, so alpha cannot be chosen. Import lesion masks."
        )
    best = max(dice, key=lambda alpha: dice[alpha])
    patients = len(tallies[best].sums)
    return AlphaChoice(alpha=best, threshold=thresholds[best], dice=dice, slices=slices, patients=patients)


def _map(case: PixelCase, name: str) -> np.ndarray:
    if name not in case.maps:
        raise ConfigError(f"Slice {case.slice_id} has the maps {sorted(case.maps)}, not {name!r}. Choose one of them.")
    return np.asarray(case.maps[name])
