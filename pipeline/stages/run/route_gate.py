"""Out-of-domain gate of a route: fitted on the normals that a run learns from, asked before the run's detector scores.

A series is held if the median of its slices' distances lies above the threshold. The threshold is conformal: of normal
series like those of `validate`, one per patient, at most the stated share is held. Nine slices, evenly spaced, speak
for a series. The same pass measures each study's images as the model sees them, for the tests of drift.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import iterate_batches
from pipeline.data.sets.selection import NotScoredSeries, Selection
from pipeline.data.sets.splits import assign_sets
from pipeline.detection.conformal import Unit, count_allowed_exceedances
from pipeline.detection.domain_gate import DomainGate, GateConfig, fit_gate, load_gate, save_gate
from pipeline.errors import ConfigError, EmptySelection, RejectionCode, TooFewNormals
from pipeline.nn.rng import row_key
from pipeline.stages.run.learning_sets import list_patients_of
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.open_run import OpenFolder
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import SetName, SliceRef

AT_ONCE = 64
SLICES_A_SERIES = 9
FOLDER, FACTS = "domain_gate", "domain_gate.json"
OUT_OF_DOMAIN = RejectionCode.OUT_OF_DOMAIN.value


@dataclass(frozen=True, slots=True)
class Screened:
    """Series before scoring.

    Attributes:
        selection: without the series that are held.
        held: those, with their code.
        measures: of each study: the mean over its slices of the gate's distance and of simple statistics.
    """

    selection: Selection
    held: tuple[NotScoredSeries, ...]
    measures: dict[str, dict[str, float]]


def fit_route_gate(
    run: RunConfig, settings: Settings, config: GateConfig | None = None, most: int = 2000, seed: int = 0
) -> DomainGate:
    """Return a gate that was fitted on a run's training normals and calibrated on its validate normals.

    `save_gate` writes it, once it has a threshold. No label is read but that of the normals.

    Args:
        run: data and route; its method is not used.
        settings: the workspace.
        config: what the gate measures, and its false rejection rate.
        most: most slices to learn from, chosen by hash.
        seed: of that choice.

    Raises:
        ConfigError: the run reads volumes.
        EmptySelection: a set has too few normal slices.
    """
    if run.data.volumes is not None:
        raise ConfigError("A gate sees slices, and this run reads volumes. Give a run without data.volumes.")
    learned = torch.cat([images for images, _, _ in _read(_normals(run, settings, "train", most, seed), run, settings)])
    images = {"normaliser": run.data.normaliser.model_dump(mode="json"), "volumes": None}
    gate = fit_gate(learned, config, route=run.data.route, images=images)
    held_out = few_slices(_normals(run, settings, "validate", None, seed))
    patients = {ref.stack_id: ref.patient_id for ref in held_out.slices}
    scores: dict[str, list[float]] = defaultdict(list)
    for images_of, _, refs in _read(held_out, run, settings):
        for ref, score in zip(refs, gate.score(images_of), strict=True):
            scores[ref.stack_id].append(float(score))
    return gate.calibrated(Unit(name, patients[name], float(np.median(values))) for name, values in scores.items())


def refuse_few_for_gate(run: RunConfig, settings: Settings) -> None:
    """Refuse a run whose gate could not be calibrated, before it is trained.

    Raises:
        TooFewNormals: too few validate patients for its false rejection rate.
    """
    if run.domain_gate is None:
        return
    share = run.domain_gate.false_rejection
    with Catalogue.open(settings) as catalogue:
        assign_sets(catalogue, run.data.splits, list_patients_of(run, settings, catalogue))
        patients = len({ref.patient_id for ref in choose(catalogue, run, settings, sets=("validate",)).slices})
    try:
        count_allowed_exceedances(share, patients)
    except TooFewNormals as error:
        what = f"An out-of-domain gate that holds {100 * share:g} % of normal series (set data.splits or domain_gate)"
        raise TooFewNormals(patients, error.need, what) from None


def fit_gate_of_run(opened: OpenFolder) -> str:
    """Fit the gate of a run that has one in its configuration, into the run's folder; return its SHA-256, or ""."""
    if opened.config.domain_gate is None:
        return ""
    gate = fit_route_gate(opened.config, opened.settings, opened.config.domain_gate)
    sha256 = save_gate(opened.folder.path / FOLDER, gate)
    threshold = gate.threshold
    facts = {"sha256": sha256, "threshold": threshold.value, "n": threshold.n, "share": threshold.alpha}
    opened.folder.write(FACTS, facts)
    return sha256


def load_gate_of_run(folder: RunFolder) -> DomainGate | None:
    """Return the gate of a calibrated run; None if its configuration asks for none.

    Raises:
        ArtefactError: the gate is missing, altered or damaged.
    """
    if folder.read_config().domain_gate is None:
        return None
    facts: dict[str, Any] = folder.read(FACTS)
    return load_gate(folder.path / FOLDER, str(facts["sha256"]))


def screen(opened: OpenFolder, gate: DomainGate, selection: Selection) -> Screened:
    """Hold the series that the gate refuses, and measure the images of every study.

    A series that cannot be read is neither held nor measured: scoring reports why.

    Args:
        opened: the run that is to score.
        gate: of this run.
        selection: slices to be scored.
    """
    distances: dict[str, list[float]] = defaultdict(list)
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    owners: dict[str, SliceRef] = {}
    for images, bodies, refs in _read(few_slices(selection), opened.config, opened.settings):
        for ref, distance, row in zip(refs, gate.score(images).tolist(), measure(images, bodies), strict=True):
            owners[ref.stack_id] = ref
            distances[ref.stack_id].append(distance)
            measured[ref.study_id].append({"distance": distance, **row})
    medians = {name: float(np.median(values)) for name, values in distances.items()}
    strange = {name: median for name, median in medians.items() if median > gate.threshold.value}
    held = tuple(_held(owners[name], median, gate) for name, median in strange.items())
    return Screened(
        replace(selection, slices=tuple(ref for ref in selection.slices if ref.stack_id not in strange)),
        held,
        {study: _mean(rows) for study, rows in measured.items()},
    )


def measure(images: Tensor, bodies: Tensor) -> list[dict[str, float]]:
    """Return simple statistics of normalised images [N, C, S, S] within their bodies [N, 1, S, S], one row per image.

    brightness and contrast are mean and standard deviation; sharpness is the mean absolute gradient; noise is the
    median absolute Laplacian, over 0.6745 and the root of 20, so that it is the standard deviation of white noise.
    """
    x, inside = images[:, :1].double(), bodies[:, :1]
    steps = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    across, down = steps[..., 1:-1, 2:] - x, steps[..., 2:, 1:-1] - x
    around = steps[..., 1:-1, 2:] + steps[..., 1:-1, :-2] + steps[..., 2:, 1:-1] + steps[..., :-2, 1:-1] - 4 * x
    rows = []
    for row in range(len(x)):
        mask = inside[row]
        values, edges = x[row][mask], (across[row].abs() + down[row].abs())[mask]
        rows.append(
            {
                "brightness": float(values.mean()),
                "contrast": float(values.std(correction=0)),
                "sharpness": float(edges.mean()),
                "noise": float(around[row][mask].abs().median() / (0.6745 * 20**0.5)),
            }
        )
    return rows


def few_slices(selection: Selection) -> Selection:
    """Return at most nine slices of each series, evenly spaced."""
    stacks: dict[str, list[SliceRef]] = defaultdict(list)
    for ref in selection.slices:
        stacks[ref.stack_id].append(ref)
    chosen = [refs[place] for refs in stacks.values() for place in _spaced(len(refs))]
    return replace(selection, slices=tuple(chosen))


def _spaced(count: int) -> list[int]:
    return sorted({round((place + 0.5) * count / SLICES_A_SERIES - 0.5) for place in range(SLICES_A_SERIES)})


def _held(ref: SliceRef, median: float, gate: DomainGate) -> NotScoredSeries:
    threshold = gate.threshold
    sentence = (
        f"The series is unlike the normal scans that the model of {gate.route} learned from: a distance of "
        f"{median:.4g}, above {threshold.value:.4g}, which {100 * threshold.alpha:g} % of normal series exceed at most "
        f"({threshold.n} patients). Look at it, and check body part, view, protocol and scanner."
    )
    return NotScoredSeries(ref.series_id, ref.study_id, OUT_OF_DOMAIN, sentence)


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _normals(run: RunConfig, settings: Settings, name: SetName, most: int | None, seed: int) -> Selection:
    """Return normal slices of a set, with `most` of them, chosen by hash."""
    with Catalogue.open(settings) as catalogue:
        chosen = choose(catalogue, run, settings, sets=(name,), labels=("normal",))
    if not chosen.slices:
        raise EmptySelection(
            f"The set {name} has no normal slices of the route {run.data.route}, and a gate needs some. Label more "
            f"normal scans, or set data.splits.normals.{name} above 0.{chosen.left_out()}"
        )
    if most is None:
        return chosen
    by_hash = sorted(chosen.slices, key=lambda ref: row_key(seed, ref.content_id))
    return replace(chosen, slices=tuple(by_hash[:most]))


def _read(selection: Selection, run: RunConfig, settings: Settings) -> Iterator[tuple[Tensor, Tensor, list[SliceRef]]]:
    """Yield images and bodies [n, C, S, S] of slices that show a body, and their references."""
    data = dataset(selection, run, settings, cache="none", whole=False)
    for batch in iterate_batches(data, AT_ONCE):
        rows = [row for row, body in enumerate(batch.body) if bool(body.any())]
        if rows:
            yield batch.images[rows].clone(), batch.body[rows].clone(), [data.ref(batch.ids[row]) for row in rows]
