"""AUCp: choosing a score without a label, and when that must not be believed.

Validate normals are called 0 and incoming scans that nobody has labelled 1; the AUROC of that question (AUCp) rises
with the AUROC of the true one, as long as the incoming scans are the same mixture with some anomalies in it. It fails
silently in two ways, and both are looked for: the incoming scans come from elsewhere (another scanner is told apart,
not a lesion), or there are no anomalies among them (all scores give .5, and the highest is the luckiest). How lucky the
highest of so many scores would be is found by exchanging the sides among the patients, for all scores at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata

from pipeline.config import Config
from pipeline.data.images.dataset import SliceDataset
from pipeline.detection.controls import gradient_energy, noise
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.errors import EmptySelection
from pipeline.evaluation.compare import auroc_covariance
from pipeline.types import SliceRef

MOST_SHIFT = 0.2  # share of slices that would have to change their site or scanner
CONTROLS = ("mean_intensity", "std", "gradient_energy", "noise")


class AucpReport(Config):
    """What the label-free choice rests on.

    Attributes:
        value, low, high: AUCp of its best cell, with the 95 % interval (Obuchowski, by patient) of that cell, as if it
            had been the only one; None without one.
        scores, chance: how many were tried, and how often the highest AUCp of them all is as high where sides say
            nothing (permutations of the patients).
        normals, incoming: units of either side.
        shift: total variation distance of site and of scanner between the two sides, 0 to 1.
        controls: AUCp of what the picture gives away without a model, in its better direction.
        warnings: why it must not be believed; empty where nothing was found against it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    scores: int = 1
    chance: float | None = None
    normals: int
    incoming: int
    shift: dict[str, float] = {}
    controls: dict[str, float] = {}
    warnings: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether nothing speaks against the choice."""
        return self.value is not None and not self.warnings

    @property
    def sentence(self) -> str:
        """The report in words."""
        if self.value is None:
            return f"No label-free choice. {' '.join(self.warnings)}"
        interval = "" if self.low is None else f" ({self.low:.3f} to {self.high:.3f})"
        counts = f"{self.normals} validate normals against {self.incoming} unlabelled"
        head = f"AUCp {self.value:.3f}{interval}, the highest of {self.scores}: {counts}."
        return " ".join([head, *self.warnings]) if self.warnings else f"{head} Nothing was found against it."


class Sides(NamedTuple):
    """What one score says of both sides: scores float64 [N], incoming bool [N] (unlabelled), patients' pseudonyms."""

    scores: np.ndarray
    incoming: np.ndarray
    patients: Sequence[str]

    @property
    def aucp(self) -> float:
        """AUROC of incoming against normal; NaN where a side is empty."""
        return auroc(self.scores, self.incoming) if len(self.scores) else float("nan")


def check_aucp(tried: Sequence[Sides], validate: SliceDataset, unlabelled: SliceDataset) -> AucpReport:
    """Return the highest AUCp of several scores with everything that speaks against it.

    Args:
        tried: one entry a score, at least one.
        validate, unlabelled: the slices behind them, for what a scanner leaves in a picture.
    """
    best = max(tried, key=lambda sides: (not math.isnan(sides.aucp), sides.aucp))
    sides = {"normals": int((~best.incoming).sum()), "incoming": int(best.incoming.sum())}
    if not all(sides.values()):
        return AucpReport(value=None, **sides, warnings=("There are no unlabelled incoming scans on this route.",))
    value, clusters = best.aucp, np.unique(list(best.patients), return_inverse=True)[1]
    try:
        _, covariance = auroc_covariance(best.scores[None], best.incoming, clusters)
    except EmptySelection as reason:
        return AucpReport(value=value, **sides, warnings=(str(reason),))
    reach, luck = norm.ppf(0.975) * float(np.sqrt(covariance[0, 0])), chance(tried)
    shift = {name: _distance(name, validate.slices, unlabelled.slices) for name in ("site", "scanner")}
    controls = _controls(validate, unlabelled)
    warnings = [*_absent(len(tried), luck), *_shifted(shift, controls, value)]
    return AucpReport(
        value=value, low=value - reach, high=value + reach, scores=len(tried), chance=luck, **sides, shift=shift,
        controls=controls, warnings=tuple(warnings),
    )  # fmt: skip


def chance(tried: Sequence[Sides], permutations: int = 1000, seed: int = 0) -> float:
    """Return the p-value of the highest AUCp: exact, whatever the scores' correlation (Westfall and Young's maxT).

    Patients change sides, with all their units and for every score at once.
    """
    patients = sorted({patient for sides in tried for patient in sides.patients})
    side = dict(pair for sides in tried for pair in zip(sides.patients, sides.incoming, strict=True))
    place, rng = {patient: i for i, patient in enumerate(patients)}, np.random.default_rng(seed)
    drawn = rng.permuted(np.tile([side[patient] for patient in patients], (permutations, 1)), axis=1)
    highest, observed = np.zeros(permutations), 0.0
    for sides in tried:
        if math.isnan(sides.aucp):
            continue
        incoming = drawn[:, [place[patient] for patient in sides.patients]]
        count, others = incoming.sum(axis=1), (~incoming).sum(axis=1)
        pairs = np.maximum(count * others, 1)  # a side without units, where patients have none under this score, is 0
        areas = (incoming @ rankdata(sides.scores) - count * (count + 1) / 2) / pairs
        highest, observed = np.maximum(highest, areas), max(observed, sides.aucp)
    return float((1 + (highest >= observed - 1e-12).sum()) / (permutations + 1))


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the AUROC of scores [N]; NaN where a class is absent."""
    if positive.all() or not positive.any():
        return float("nan")
    areas, number = scores[positive], np.sort(scores[~positive])
    below, upto = np.searchsorted(number, areas, "left"), np.searchsorted(number, areas, "right")
    return float(np.mean((below + upto) / 2) / len(number))


def _absent(tried: int, luck: float) -> Iterable[str]:
    if luck > 0.05:
        yield (
            f"Of {tried} scores that say nothing the highest AUCp is as high with p = {luck:.2g}: anomalies may be "
            "absent among the incoming scans, and the highest score is then the luckiest."
        )


def _shifted(shift: dict[str, float], controls: dict[str, float], value: float) -> Iterable[str]:
    for name, distance in shift.items():
        if distance > MOST_SHIFT:
            yield (
                f"{distance:.0%} of the incoming slices come from another {name} than the normals: AUCp may tell "
                "scanners apart, not lesions."
            )
    strongest = max(controls, key=lambda name: controls[name])
    if controls[strongest] >= value:
        yield (
            f"The control {strongest} tells incoming scans from normals as well ({controls[strongest]:.3f}): what "
            "differs may be how they were made."
        )


def _distance(name: str, first: Sequence[SliceRef], second: Sequence[SliceRef]) -> float:
    """Total variation distance of an attribute's distribution over slices."""
    shares = []
    for refs in (first, second):
        found = Counter(getattr(InstanceAttributes.from_json(ref.attributes), name) for ref in refs)
        shares.append({value: count / len(refs) for value, count in found.items()})
    return sum(abs(shares[0].get(value, 0) - shares[1].get(value, 0)) for value in shares[0].keys() | shares[1]) / 2


def _controls(validate: SliceDataset, unlabelled: SliceDataset) -> dict[str, float]:
    values = np.array([row for data in (validate, unlabelled) for row in _traces(data)])
    incoming = np.arange(len(values)) >= len(validate)
    present = np.isfinite(values).all(axis=1)
    areas = [auroc(column[present], incoming[present]) for column in values.T]
    return {name: max(area, 1 - area) for name, area in zip(CONTROLS, areas, strict=True)}


def _traces(data: SliceDataset) -> Iterable[tuple[float, ...]]:
    for index in range(len(data)):
        item = data[index]
        image, body = np.asarray(item["image"])[0], np.asarray(item["body"])[0]
        inside = image[body].astype(np.float64)
        mean, std = (float(inside.mean()), float(inside.std())) if inside.size else (float("nan"),) * 2
        yield mean, std, gradient_energy(image, body), noise(image, body)
