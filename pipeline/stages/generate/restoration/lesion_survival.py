"""Whether lesions survive a degradation and its removal, by a detector, and whether more normal images are flagged.

The same labelled slices are scored as they are and with each answer in their place: pixel AP within the body, AUROC of
the detector's own unit (study or slice), and the share of normal units above its calibrated threshold.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd

from pipeline.config import Config, Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset, Stack, iterate_batches
from pipeline.data.sets.selection import Selection
from pipeline.detection.conformal import Threshold
from pipeline.detection.scorer import Scorer
from pipeline.detection.slices import slice_results
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.metrics import evaluate_images
from pipeline.evaluation.pixel_metrics import PixelCase, evaluate_pixels
from pipeline.evaluation.results import ResultTable
from pipeline.evaluation.table import CONTROL
from pipeline.nn.rng import row_key
from pipeline.stages.generate.restoration.paired import Problem
from pipeline.stages.generate.task_base import PairedTask
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import findings
from pipeline.types import Label, SetName, SliceScore

ORIGINAL, PLAINEST = "original", "plainest"
Scores = dict[str, list[SliceScore]]


@dataclass(frozen=True, slots=True)
class Watch:
    """A calibrated detector that sees what a task's model makes.

    Attributes:
        detector: the detector.
        config: of its run.
        threshold: a unit above it is flagged.
    """

    detector: Scorer
    config: RunConfig
    threshold: Threshold

    @classmethod
    def open(cls, run_id: str, run: RunConfig, settings: Settings) -> Watch:
        """Read the detector of a run, which must see the images of another run's model as they are.

        Raises:
            ArtefactError: the run is missing, or not calibrated.
            ConfigError: its route, normaliser or fold differs, or it sees volumes.
            TooFewNormals: it has too few calibration units for its own false-positive rate.
        """
        folder = RunFolder.find(settings, run_id)
        config, calibrated = folder.read_config(), folder.read_calibrated()
        for field in ("route", "normaliser", "fold", "volumes"):
            theirs, ours = getattr(config.data, field), getattr(run.data, field)
            if theirs != ours:
                raise ConfigError(
                    f"The detector of {folder.run_id} has another data.{field} than the task's model ({theirs} and "
                    f"{ours}), so it cannot judge its images. Name a run with the same one."
                )
        detector = load_detector(folder.detector, calibrated.sha256)
        threshold = cast(Any, detector.calibration).threshold(detector.config.flagging.alpha)
        return cls(detector, config, threshold)


class SurvivalRow(Config):
    """What the detector says about one answer; a change is from the original images, a gain over the first answer.

    Attributes:
        name: of the answer, or "original".
        pixel_ap: None where the detector has no maps or the lesions no masks.
        auroc: of the detector's unit.
        flagged_normals: share of normal units above the calibrated threshold.
        normals: number of these units.
    """

    name: str
    pixel_ap: Estimate | None = None
    pixel_ap_change: Estimate | None = None
    pixel_ap_gain: Estimate | None = None
    auroc: Estimate
    auroc_change: Estimate | None = None
    auroc_gain: Estimate | None = None
    flagged_normals: Estimate
    flagged_change: Estimate | None = None
    normals: int


def judge_survival(
    problems: Sequence[Problem], watch: Watch, settings: Settings, config: PairedTask
) -> dict[str, tuple[SurvivalRow, ...]]:
    """Return one row per answer of each problem, by its name; the first row is of the original images.

    Raises:
        EmptySelection: the sets lack normal or abnormal slices, or have a single patient.
    """
    with Catalogue.open(settings) as catalogue:
        selection = _choose(catalogue, watch.config, settings, config)
    taken = tuple(ref for ref in selection.slices if all(problem.takes(ref) for problem in problems))
    selection = replace(selection, slices=taken)
    data = dataset(selection, watch.config, settings, cache="disk", whole=watch.detector.whole)
    masked = any(ref.mask_key for ref in selection.slices)
    return {problem.name: _judge(problem, watch, data, config.seed, masked) for problem in problems}


def _choose(catalogue: Catalogue, run: RunConfig, settings: Settings, config: PairedTask) -> Selection:
    """Choose labelled slices of at most so many patients, by hash."""
    sets: tuple[SetName, ...] = config.judge.lesions_in
    labels: tuple[Label, ...] = ("normal", "abnormal")
    chosen = choose(catalogue, run, settings, sets=sets, labels=labels)
    if {ref.label for ref in chosen.slices} != set(labels):
        raise EmptySelection(
            f"The sets {', '.join(sets)} lack normal or abnormal slices of the route {run.data.route}, and the "
            "detector needs both. Import labels with nightread labels import FILE.csv, or change judge.lesions_in."
            f"{chosen.left_out()}"
        )
    patients = sorted({ref.patient_id for ref in chosen.slices}, key=lambda one: row_key(config.seed, one))
    few = set(patients[: config.judge.patients])
    return replace(chosen, slices=tuple(ref for ref in chosen.slices if ref.patient_id in few))


def _judge(problem: Problem, watch: Watch, data: SliceDataset, seed: int, masked: bool) -> tuple[SurvivalRow, ...]:
    scores: Scores = defaultdict(list)
    cases = _score(problem, watch.detector, data, seed, scores)
    pixels = evaluate_pixels(cases, watch.config.evaluation) if masked and watch.detector.has_maps else None
    for _ in cases:  # what no table took
        pass
    units = _table_of_units(watch, data, scores)
    names = list(problem.answers)
    images = evaluate_images(units, watch.config.evaluation, models=names, unit=watch.config.unit)
    flagged = _count_flagged(units, watch)
    normals = int((units["label"] == "normal").sum())
    return tuple(
        SurvivalRow(
            name=name,
            **_metric(pixels, "AP", "pixel_ap", name, names[0]),
            **_metric(images, "AUROC", "auroc", name, names[0]),
            flagged_normals=flagged[name][0],
            flagged_change=flagged[name][1],
            normals=normals,
        )
        for name in (ORIGINAL, *names)
    )


def _score(problem: Problem, detector: Scorer, data: SliceDataset, seed: int, scores: Scores) -> Iterator[PixelCase]:
    """Score every slice as it is and with each answer; yield its maps, and add the scores to `scores`."""
    for stack in _read_stacks(detector, data):
        batch, worse = stack.batch, problem.worsen(stack.batch, seed)
        seen = {CONTROL + ORIGINAL: batch.images}
        seen |= {name: problem.answer(name, worse, seed) for name in problem.answers}
        results = {
            name: list(slice_results(batch, detector.score_batch(replace(batch, images=images))))
            for name, images in seen.items()
        }
        results[CONTROL + PLAINEST] = results[next(iter(problem.answers))]
        for place, slice_id in stack.selected.items():
            ref, of_slice = data.ref(slice_id), {name: one[place] for name, one in results.items()}
            if any(math.isnan(one.score) for one in of_slice.values()):
                continue  # no body is left to score
            for name, one in of_slice.items():
                scores[name].append(ref.scored(one.score))
            if detector.has_maps:
                step = data.step(slice_id)
                native = {name: detector.native(one, step, reconstruction=False) for name, one in of_slice.items()}
                maps = {name: cast(np.ndarray, one.values) for name, one in native.items()}
                body = native[CONTROL + ORIGINAL].body
                mask = data.read_mask(slice_id)
                mask = np.zeros(body.shape, bool) if mask is None else mask
                yield PixelCase(ref.patient_id, slice_id, ref.label, maps, body, mask)


def _read_stacks(detector: Scorer, data: SliceDataset) -> Iterator[Stack]:
    """Yield batches with content addresses as ids: whole series where the detector reads them, else some slices."""
    if detector.whole:
        yield from data.stacks()
        return
    for batch in iterate_batches(data, detector.config.batch_size):
        ids = tuple(data.ref(slice_id).content_id for slice_id in batch.ids)
        yield Stack(replace(batch, ids=ids), dict(enumerate(batch.ids)))


def _table_of_units(watch: Watch, data: SliceDataset, scores: Scores) -> pd.DataFrame:
    """Return one row per unit of the detector: its patient, its label, and the score of each answer."""
    by_slice = watch.config.unit == "slice"
    columns: dict[str, dict[str, float]] = {}
    for name, of_slices in scores.items():
        if by_slice:
            columns[name] = {f"{one.instance_id}/{one.frame}": one.score for one in of_slices}
        else:
            columns[name] = {one.study_id: one.score for one in findings(watch.detector, of_slices)[0]}
    refs: dict[str, list[Any]] = defaultdict(list)
    for ref in data.slices:
        refs[ref.slice_id if by_slice else ref.study_id].append(ref)
    table = pd.DataFrame(columns).rename_axis("unit_id").reset_index()
    table["patient_id"] = [refs[unit][0].patient_id for unit in table["unit_id"]]
    table["label"] = [
        "abnormal" if any(ref.label == "abnormal" for ref in refs[unit]) else "normal" for unit in table["unit_id"]
    ]
    return table


def _metric(table: ResultTable | None, metric: str, field: str, name: str, plain: str) -> dict[str, Estimate | None]:
    """Return a metric of an answer, its change from the original images, and its gain over the plainest answer."""
    if table is None:
        return {}
    differences = {(one.control, one.model): one.difference for one in table.verdicts}
    return {
        field: table.row(name).metrics[metric],
        f"{field}_change": differences.get((ORIGINAL, name)),
        f"{field}_gain": None if name == plain else differences.get((PLAINEST, name)),
    }


def _count_flagged(units: pd.DataFrame, watch: Watch) -> dict[str, tuple[Estimate, Estimate | None]]:
    """Return the share of normal units that are flagged, by answer, and its change from the original images."""
    normals = units[units["label"] == "normal"]
    owners = np.unique(normals["patient_id"], return_inverse=True)[1]
    columns = [name for name in units.columns if name not in ("unit_id", "patient_id", "label")]
    above = normals[columns].to_numpy(float) > watch.threshold.value
    sums, counts = np.stack([np.bincount(owners, column) for column in above.T], axis=1), np.bincount(owners)
    bootstrap = PatientBootstrap.draw(np.zeros(len(counts), int), watch.config.evaluation)
    sampled = bootstrap.sample(lambda weights: (weights @ sums) / (weights @ counts)[:, None], len(columns))
    shares = bootstrap.estimates(sampled)
    first = columns.index(CONTROL + ORIGINAL)
    result: dict[str, tuple[Estimate, Estimate | None]] = {}
    for place, name in enumerate(columns):
        change = None if place == first else bootstrap.estimates(sampled.difference(place, first))[0]
        result[name.removeprefix(CONTROL)] = shares[place], change
    return result


def survival_line(problem: str) -> Callable[[SurvivalRow], dict[str, str]]:
    """Return a function that makes a line of the table of one problem."""

    def line(row: SurvivalRow) -> dict[str, str]:
        """Return one line."""
        return {
            "problem": problem,
            "images": row.name,
            "pixel AP": _text(row.pixel_ap),
            "AP change": _text(row.pixel_ap_change),
            "AP gain": _text(row.pixel_ap_gain),
            "AUROC": _text(row.auroc),
            "AUROC change": _text(row.auroc_change),
            "AUROC gain": _text(row.auroc_gain),
            f"normals flagged, of {row.normals}": _text(row.flagged_normals),
        }

    return line


def _text(estimate: Estimate | None) -> str:
    return "" if estimate is None else estimate.text()


def survival_warnings(problems: Sequence[Problem], survivals: Mapping[str, Sequence[SurvivalRow]]) -> Iterator[str]:
    """Yield a sentence where the detector surely sees lesions less well in the model's answer, or surely flags more."""
    for problem in problems:
        for row in survivals.get(problem.name, ()):
            lost = row.pixel_ap_change or row.auroc_change
            if row.name != problem.own or lost is None:
                continue
            if lost.high is not None and lost.high < 0:
                what = "pixel AP" if row.pixel_ap_change else "AUROC"
                yield f"{problem.name}: lesions do not fully survive {row.name}: {what} changes by {lost.text()}."
            more = row.flagged_change
            if more is not None and more.low is not None and more.low > 0:
                yield f"{problem.name}: {row.name} makes normal images look abnormal: {more.text()} more are flagged."


def survival_metrics(problems: Sequence[Problem], survivals: Mapping[str, Sequence[SurvivalRow]]) -> dict[str, float]:
    """Return pixel AP, AUROC and the share of flagged normals of the model's answer to each problem, for MLflow."""
    metrics: dict[str, float] = {}
    for problem in problems:
        for row in survivals.get(problem.name, ()):
            if row.name == problem.own:
                place = problem.name.replace(" ", "_")
                metrics |= {f"auroc_{place}": row.auroc.value, f"flagged_normals_{place}": row.flagged_normals.value}
                metrics |= {} if row.pixel_ap is None else {f"pixel_ap_{place}": row.pixel_ap.value}
    return metrics
