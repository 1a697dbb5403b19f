"""Pixel-level metrics, pooled over all slices, including normal ones, on the native grid.

Pixels count only within the body. A lesion pixel outside the body cannot be found, so it counts as a positive below
every threshold. In slices labelled abnormal without a mask the normal pixels are unknown; they are left out and
counted. The cases are iterated once, and memory does not grow with their pixels (see `pixel_cells`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.bootstrap import PatientBootstrap, Sampled
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.pixel_cells import PixelPool, edges_of
from pipeline.evaluation.ranking import Curve, average_precision, best_dice, roc_area
from pipeline.evaluation.results import ResultTable, ScoreRow, judge
from pipeline.evaluation.table import CONTROL, LABELS

EIGHT_NEIGHBOURS = np.ones((3, 3), int)


@dataclass(frozen=True, slots=True)
class PixelCase:
    """One slice on its native grid.

    Attributes:
        patient_id, slice_id: pseudonyms.
        label: normal or abnormal.
        maps: float32 [H, W] by name, higher = more anomalous; `control:*` names are controls. Finite inside the body.
        body: bool [H, W].
        mask: bool [H, W], lesion pixels; empty in a normal slice.
    """

    patient_id: str
    slice_id: str
    label: str
    maps: Mapping[str, np.ndarray]
    body: np.ndarray
    mask: np.ndarray


@dataclass(slots=True)
class SliceTallies:
    """Per patient, at one threshold: true and false positives, lesion pixels, sum of slice Dice, lesion slices."""

    threshold: float
    sums: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, patient: str, negatives: np.ndarray, positives: np.ndarray) -> None:
        """Count one slice; a pixel is flagged when its value exceeds the threshold."""
        tp, fp, lesion = np.sum(positives > self.threshold), np.sum(negatives > self.threshold), len(positives)
        dice = 2 * tp / (tp + fp + lesion) if lesion else 0.0
        row = np.array([tp, fp, lesion, dice, lesion > 0], dtype=float)
        self.sums[patient] = self.sums.get(patient, 0) + row

    def rows(self) -> np.ndarray:
        """Return the sums [P, 5], patients sorted by id."""
        return np.stack([self.sums[patient] for patient in sorted(self.sums)])


def dice_of(sums: np.ndarray) -> np.ndarray:
    """Return (pooled Dice, mean Dice per lesion slice) [R, 2] of tallies summed over patients [R, 5]."""
    tp, fp, lesion, dice, slices = sums.T
    some = lesion > 0
    pooled = np.divide(2 * tp, tp + fp + lesion, out=np.full_like(tp, np.nan), where=some)
    return np.stack([pooled, np.divide(dice, slices, out=np.full_like(tp, np.nan), where=some)], axis=1)


@dataclass(slots=True)
class _Gathered:
    """Result of one pass over the cases."""

    pools: dict[str, PixelPool]
    tallies: dict[str, SliceTallies]
    counts: dict[str, int]
    lesion_patients: set[str]


def evaluate_pixels(
    cases: Iterable[PixelCase],
    config: EvaluationConfig,
    *,
    thresholds: Mapping[str, float] | None = None,
    chosen_here: bool = False,
    title: str = "all slices",
) -> ResultTable:
    """Measure pixel AP, AUROC, PRO and Dice of every map of the cases in one pass.

    PRO is the per-region overlap integrated to a false-positive rate of `config.pro_fpr` (Bergmann et al., IJCV 2021),
    regions being 8-connected components of a slice's mask. Dice needs a calibrated threshold; "best Dice (oracle)" is
    chosen on the same labels on which it is measured.

    Args:
        cases: iterated once, in any order.
        config: resamples, seed, `pixel_values` kept exactly per map, `pixel_cells` afterwards and for the resamples.
        thresholds: calibrated threshold by map name; a pixel above it is flagged. Maps without one get no Dice.
        chosen_here: the thresholds were chosen on these same labels (develop); the table then has a note.
        title: name of the selection in the report.

    Raises:
        ConfigError: shapes, labels or map names disagree, or a map is not finite inside the body.
        EmptySelection: there is no slice, lesion pixel or normal pixel, or only one patient.
    """
    gathered = _gather(cases, config, thresholds or {})
    first = next(iter(gathered.pools.values()))
    strata = np.array([patient in gathered.lesion_patients for patient in sorted(first.negatives)], dtype=int)
    bootstrap = PatientBootstrap.draw(strata, config)
    sampled = {name: _sample(gathered, name, bootstrap, config) for name in gathered.pools}
    rows = tuple(_row(name, sample, bootstrap, config) for name, sample in sampled.items())
    controls = [name for name in sampled if name.startswith(CONTROL)]
    verdicts = tuple(
        judge(bootstrap, "pixel AP", (model, sampled[model]), (control.removeprefix(CONTROL), sampled[control]))
        for model in sampled
        for control in controls
        if model not in controls
    )
    return ResultTable(
        title=title,
        level="pixel level",
        counts={"patients": len(strata), "lesion_patients": int(strata.sum()), **gathered.counts},
        interval=f"{config.confidence:.0%} patient bootstrap ({bootstrap.scheme})",
        rows=rows,
        verdicts=verdicts,
        notes=tuple(_notes(gathered, thresholds or {}, chosen_here)),
    )


def split_pixels(case: PixelCase) -> tuple[np.ndarray, np.ndarray]:
    """Check a case; return the bool grids [H, W] of its normal pixels inside the body and of its lesion pixels.

    Raises:
        ConfigError: see `evaluate_pixels`.
    """
    body, mask = np.asarray(case.body, bool), np.asarray(case.mask, bool)
    if case.label not in LABELS:
        raise ConfigError(
            f"Slice {case.slice_id} is labelled {case.label[:20]!r}; give only normal and abnormal slices."
        )
    if case.label == "normal" and mask.any():
        raise ConfigError(f"Slice {case.slice_id} is labelled normal but has a lesion mask. Correct one of the two.")
    for name, values in case.maps.items():
        if not np.shape(values) == body.shape == mask.shape:
            shapes = f"{np.shape(values)}, body {body.shape}, mask {mask.shape}"
            raise ConfigError(f"Slice {case.slice_id}: map {name} has shape {shapes}; all must share the native grid.")
        if not np.isfinite(values[body]).all():
            raise ConfigError(
                f"Slice {case.slice_id}: map {name} is not finite inside the body; score the slice again."
            )
    return body & ~mask, mask


def usable(cases: Iterable[PixelCase], counts: dict[str, int]) -> Iterator[PixelCase]:
    """Yield the cases with known pixel labels; count the others under `slices_without_mask`."""
    counts["slices_without_mask"] = 0
    for case in cases:
        if case.label == "abnormal" and not np.any(case.mask):
            counts["slices_without_mask"] += 1
        else:
            yield case


def new_pool(config: EvaluationConfig) -> PixelPool:
    """Return an empty pool, whose keys per patient are four times as fine as the cells of the resamples."""
    return PixelPool(config.pixel_values, 4 * config.pixel_cells)


def _gather(cases: Iterable[PixelCase], config: EvaluationConfig, thresholds: Mapping[str, float]) -> _Gathered:
    gathered = _Gathered({}, {}, dict.fromkeys(COUNTED, 0), set())
    for case in usable(cases, gathered.counts):
        if not gathered.pools:
            gathered.pools = {name: new_pool(config) for name in case.maps}
            gathered.tallies = {name: SliceTallies(thresholds[name]) for name in case.maps if name in thresholds}
        _take(case, gathered)
    counts = gathered.counts
    if not gathered.pools or not counts["lesion_pixels"] or not counts["normal_pixels"]:
        raise EmptySelection(
            f"{counts['slices']} slices have {counts['lesion_pixels']} lesion and {counts['normal_pixels']} normal "
            "pixels, but both are needed. Import lesion masks."
        )
    unknown = sorted(set(thresholds) - set(gathered.pools))
    if unknown:
        raise ConfigError(
            f"Thresholds are given for {', '.join(unknown)}, but there are no such maps. Use names of maps."
        )
    return gathered


COUNTED = ("slices", "lesion_slices", "regions", "normal_pixels", "lesion_pixels", "lesion_pixels_outside_body")


def _take(case: PixelCase, gathered: _Gathered) -> None:
    """Add one case to the pools, tallies and counts."""
    if set(case.maps) != set(gathered.pools):
        raise ConfigError(
            f"Slice {case.slice_id} has the maps {sorted(case.maps)}, but the first slice had "
            f"{sorted(gathered.pools)}. Score the slices again."
        )
    negative, mask = split_pixels(case)
    labelled, regions = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
    share = 1.0 / np.bincount(labelled[mask], minlength=1)[labelled[mask]] if regions else np.zeros(0)
    outside = mask & ~np.asarray(case.body, bool)
    for name, values in case.maps.items():
        seen = np.where(outside, -np.inf, values).astype(np.float32)
        gathered.pools[name].add(case.patient_id, seen[negative], seen[mask], share)
        if name in gathered.tallies:
            gathered.tallies[name].add(case.patient_id, seen[negative], seen[mask])
    if regions:
        gathered.lesion_patients.add(case.patient_id)
    increments = (1, regions > 0, regions, negative.sum(), mask.sum(), outside.sum())
    for key, value in zip(COUNTED, increments, strict=True):
        gathered.counts[key] += int(value)


def _sample(gathered: _Gathered, name: str, bootstrap: PatientBootstrap, config: EvaluationConfig) -> Sampled:
    """Sample the metrics of one map from patient histograms; the estimates themselves use all distinct values.

    Resamples use cells, so they are shifted by the small difference between the result with cells and the exact one.
    """
    pool = gathered.pools[name]
    keys, weights = pool.totals()
    exact = _ranked(*(column[None, ::-1] for column in weights.T), config)  # type: ignore[call-arg]  # three columns
    edges = edges_of(keys, weights, config.pixel_cells)
    cells = [table[:, ::-1] for table in pool.histograms(edges)]
    sampled = bootstrap.sample(lambda w: _ranked(*(w @ table for table in cells), config), 4 * len(edges))  # type: ignore[call-arg]  # three tables
    shift = exact[0] - sampled.values
    ranked = Sampled(exact[0], sampled.replicates + shift, sampled.jackknife + shift)
    if name not in gathered.tallies:
        return ranked
    sums = gathered.tallies[name].rows()
    return Sampled.join([ranked, bootstrap.sample(lambda w: dice_of(w @ sums), 64)])


def _ranked(negatives: np.ndarray, positives: np.ndarray, regions: np.ndarray, config: EvaluationConfig) -> np.ndarray:
    """Return AP, AUROC, PRO and best Dice [R, 4] from counts [R, B], highest value first."""
    curve = Curve.from_counts(positives, negatives)
    overlap = roc_area(Curve.from_counts(regions, negatives), config.pro_fpr)
    return np.stack([average_precision(curve), roc_area(curve), overlap, best_dice(curve)], axis=1)


def _row(name: str, sample: Sampled, bootstrap: PatientBootstrap, config: EvaluationConfig) -> ScoreRow:
    names = ["AP", "AUROC", f"PRO@{100 * config.pro_fpr:g}", "best Dice (oracle)", "Dice", "Dice per lesion slice"]
    metrics = dict(zip(names, bootstrap.estimates(sample), strict=False))
    return ScoreRow(name=name.removeprefix(CONTROL), control=name.startswith(CONTROL), metrics=metrics)


def _notes(gathered: _Gathered, thresholds: Mapping[str, float], chosen_here: bool) -> list[str]:
    counts = gathered.counts
    how = (
        "whose alpha was chosen on these same labels: slightly optimistic"
        if chosen_here
        else "chosen without these labels"
    )
    notes = [f"Dice of {name.removeprefix(CONTROL)} at {value:.4g}, {how}." for name, value in thresholds.items()]
    if outside := counts["lesion_pixels_outside_body"]:
        share = outside / counts["lesion_pixels"]
        notes.append(f"{outside} lesion pixels ({share:.1%}) are outside the body mask and count as missed.")
    if left := counts["slices_without_mask"]:
        notes.append(f"{left} abnormal slices without a mask are left out, since their normal pixels are unknown.")
    packed = [name.removeprefix(CONTROL) for name, pool in gathered.pools.items() if pool.dropped]
    if packed:
        notes.append(
            f"Values of {', '.join(packed)} were kept in histogram cells: results are within 0.001 of the exact ones."
        )
    return notes
