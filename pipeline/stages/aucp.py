"""AUCp: choosing a score without a label, and when that must not be believed.

Validate normals are called 0 and incoming scans that nobody has labelled 1; the AUROC of that question (AUCp) rises
with the AUROC of the true one, as long as the incoming scans are the same mixture with some anomalies in it. It fails
silently in two ways, and both are looked for: the incoming scans come from elsewhere (another scanner is told apart,
not a lesion), or there are no anomalies among them (all scores give .5, and the highest is the luckiest).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.stats import norm

from pipeline.config import Config
from pipeline.data.dataset import SliceDataset
from pipeline.detection.controls import gradient_energy, noise
from pipeline.dicom.attributes import InstanceAttributes
from pipeline.errors import EmptySelection
from pipeline.evaluation.compare import auroc_covariance
from pipeline.types import SliceRef

MOST_SHIFT = 0.2  # share of slices that would have to change their site or scanner
CONTROLS = ("mean_intensity", "std", "gradient_energy", "noise")


class AucpReport(Config):
    """What the label-free choice rests on.

    Attributes:
        value, low, high: AUCp of its best cell, with the 95 % interval (Obuchowski, by patient); None without one.
        normals, incoming: units of either side.
        shift: total variation distance of site and of scanner between the two sides, 0 to 1.
        controls: AUCp of what the picture gives away without a model, in its better direction.
        warnings: why it must not be believed; empty where nothing was found against it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
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
        head = f"AUCp {self.value:.3f}{interval}, {self.normals} validate normals against {self.incoming} unlabelled."
        return " ".join([head, *self.warnings]) if self.warnings else f"{head} Nothing was found against it."


def check_aucp(
    scores: np.ndarray, incoming: np.ndarray, patients: Sequence[str], validate: SliceDataset, unlabelled: SliceDataset
) -> AucpReport:
    """Return the AUCp of one score with everything that speaks against it.

    Args:
        scores: float64 [N] of the units of both sides.
        incoming: bool [N], True for units that nobody has labelled.
        patients: pseudonyms [N].
        validate, unlabelled: the slices behind them, for what a scanner leaves in a picture.
    """
    sides = {"normals": int((~incoming).sum()), "incoming": int(incoming.sum())}
    if not all(sides.values()):
        return AucpReport(value=None, **sides, warnings=("There are no unlabelled incoming scans on this route.",))
    value = auroc(scores, incoming)
    try:
        _, covariance = auroc_covariance(scores[None], incoming, np.unique(list(patients), return_inverse=True)[1])
    except EmptySelection as reason:
        return AucpReport(value=value, **sides, warnings=(str(reason),))
    reach = norm.ppf(0.975) * float(np.sqrt(covariance[0, 0]))
    shift = {name: _distance(name, validate.slices, unlabelled.slices) for name in ("site", "scanner")}
    controls = _controls(validate, unlabelled)
    warnings = [*_absent(value, reach), *_shifted(shift, controls, value)]
    return AucpReport(
        value=value, low=value - reach, high=value + reach, **sides, shift=shift, controls=controls,
        warnings=tuple(warnings),
    )  # fmt: skip


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the AUROC of scores [N]; NaN where a class is absent."""
    if positive.all() or not positive.any():
        return float("nan")
    areas, number = scores[positive], np.sort(scores[~positive])
    below, upto = np.searchsorted(number, areas, "left"), np.searchsorted(number, areas, "right")
    return float(np.mean((below + upto) / 2) / len(number))


def _absent(value: float, reach: float) -> Iterable[str]:
    if value - reach <= 0.5:
        yield (
            "The interval of the best AUCp reaches .5: anomalies may be absent among the incoming scans, and the "
            "highest score is then the luckiest."
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
