"""One fold and one share of the patients: a sampler and the arms of a detector, trained, and what each scores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset, iterate_batches
from pipeline.data.images.normalise import Normaliser
from pipeline.data.sets.folds import Fold
from pipeline.data.sets.selection import Selection
from pipeline.detection.detector import Detector
from pipeline.errors import EmptySelection
from pipeline.methods.base import Method
from pipeline.methods.stored_model import Model
from pipeline.nn.rng import row_key
from pipeline.stages.detect.train import build_untrained
from pipeline.stages.generate.draw import check_request, draw_samples
from pipeline.stages.generate.training_data.mixed_images import MixedImages, SyntheticImages
from pipeline.stages.generate.training_data.training_data_task import SynthesiseTrainingTask
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.training.fitting import fit
from pipeline.training.order import Images
from pipeline.types import Label

PLAIN, LONGER, NORMALS, LESIONS, EVERYTHING = (
    "plain augmentation",
    "plain, equal CPU",
    "synthetic normals",
    "synthetic lesions",
    "both",
)
ARMS = (PLAIN, NORMALS, LESIONS, EVERYTHING, LONGER)  # in the order of training: the last one's budget needs the others


@dataclass(frozen=True, slots=True)
class Cell:
    """One fold and one share of the training patients, with their data.

    Attributes:
        fold: number of the fold that is held out.
        share: of the training patients.
        sampler, plain, painted: runs under the fold.
        learned, validated, held_out: data sets; the last is labelled.
        patients: number of training patients.
    """

    fold: int
    share: float
    sampler: RunConfig
    plain: RunConfig
    painted: RunConfig
    learned: SliceDataset
    validated: SliceDataset
    held_out: SliceDataset
    patients: int

    @property
    def name(self) -> str:
        """Short name of its folder."""
        return f"fold-{self.fold}-of-{self.share:g}"


@dataclass(slots=True)
class CellResult:
    """What the arms of a cell scored: a frame as `ScoreTable` takes it, CPU seconds and images by arm, and samples."""

    frame: pd.DataFrame
    seconds: dict[str, float]
    trained_on: dict[str, int]
    samples: torch.Tensor


def open_cell(config: SynthesiseTrainingTask, fold: int, share: float, settings: Settings) -> Cell:
    """Choose the patients and open the data of a cell.

    Raises:
        EmptySelection: the share leaves no patient, or a set lacks slices.
    """
    sampler, plain, painted = (
        run.model_copy(update={"data": run.data.model_copy(update={"fold": Fold(of=config.folds, held_out=fold)})})
        for run in (config.run, config.detector, config.lesion_run)
        if run is not None
    )
    labels: tuple[Label, ...] = ("normal", "abnormal")
    with Catalogue.open(settings) as catalogue:
        whole = choose(catalogue, plain, settings, sets=("train",))
        validated = choose(catalogue, plain, settings, sets=("validate",))
        held_out = choose(catalogue, plain, settings, sets=("develop",), labels=labels)
    few, count = some_patients(whole, share, config.seed)
    if {ref.label for ref in held_out.slices} != set(labels):
        raise EmptySelection(
            f"Fold {fold} of {config.folds} lacks normal or abnormal slices of the route {plain.data.route}, and the "
            f"detectors are judged on both. Import labels, or choose fewer folds.{held_out.left_out()}"
        )
    learned, checked, asked = (dataset(one, plain, settings, cache="ram") for one in (few, validated, held_out))
    return Cell(fold, share, sampler, plain, painted, learned, checked, asked, count)


def some_patients(chosen: Selection, share: float, seed: int) -> tuple[Selection, int]:
    """Return the slices of a share of the patients, chosen by hash, and their number; smaller shares are parts of
    larger ones.

    Raises:
        EmptySelection: the share leaves no patient.
    """
    patients = sorted({ref.patient_id for ref in chosen.slices}, key=lambda one: row_key(seed, one))
    count = int(share * len(patients) + 1e-9)
    if not count:
        raise EmptySelection(
            f"{100 * share:g} % of {len(patients)} training patients leaves none to learn from. Choose a share of at "
            f"least {1 / max(len(patients), 1):.3g}, or add patients."
        )
    few = set(patients[:count])
    return replace(chosen, slices=tuple(ref for ref in chosen.slices if ref.patient_id in few)), count


def run_cell(config: SynthesiseTrainingTask, cell: Cell, folder: Path) -> CellResult:
    """Train the sampler, draw, train every arm and score the held-out slices.

    Raises:
        ConfigError: the sampler does not sample, or has no such option.
        TrainingDiverged: NaN or infinity in a loss.
    """
    began = time.process_time()
    sampler = _fit(cell.sampler, cell.learned, cell, folder / "sampler")[0]
    options: dict[str, Any] = dict(config.options)
    samples = draw_samples(
        Model(sampler, Normaliser(cell.sampler.data.normaliser)), config.drawn, seed=config.seed, **options
    ).clamp(-1, 1)
    mixed = MixedImages(cell.learned, SyntheticImages(samples), config.synthetic_share)
    cost = time.process_time() - began
    lessons: Mapping[str, tuple[RunConfig, Images]] = {
        PLAIN: (cell.plain, cell.learned),
        NORMALS: (cell.plain, mixed),
        LESIONS: (cell.painted, cell.learned),
        EVERYTHING: (cell.painted, mixed),
    }
    columns: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    images: dict[str, int] = {}
    for arm in ARMS:
        run, data = lessons.get(arm, lessons[PLAIN])
        if arm == LONGER:
            run = _longer(run, max(seconds.values()) / max(seconds[PLAIN], 1e-9))
        method, spent = _fit(run, data, cell, folder / arm.replace(" ", "-").replace(",", ""))
        seconds[arm] = spent + (cost if arm in (NORMALS, EVERYTHING) else 0.0)
        images[arm] = run.training.images
        columns[arm] = _score(run, method, cell)
    return CellResult(_frame(cell, columns), seconds, images, samples)


def require_sampler(config: SynthesiseTrainingTask) -> None:
    """Refuse a run whose method does not sample as the task asks, before anything is trained (ConfigError)."""
    if config.run is not None:
        check_request(build_untrained(config.run, {}), config.options, ())


def _longer(run: RunConfig, factor: float) -> RunConfig:
    """Return a run with so many times the training images, whole batches."""
    training = run.training
    images = max(round(training.images * factor / training.batch_size), 1) * training.batch_size
    update = {"images": images, "validate_every_images": max(training.validate_every_images, images // 4)}
    return run.model_copy(update={"training": training.model_copy(update=update)})


def _fit(run: RunConfig, data: Images, cell: Cell, folder: Path) -> tuple[Method, float]:
    result = fit(build_untrained(run, {}), data, cell.validated, run.training, folder)
    return result.method.eval(), result.process_seconds


def _score(run: RunConfig, method: Method, cell: Cell) -> np.ndarray:
    """Return the score of every held-out slice; NaN where no body is left."""
    detector = Detector(Model(method, Normaliser(run.data.normaliser)), run.require_detection(), run.data.route)
    scores = []
    for batch in iterate_batches(cell.held_out, detector.config.batch_size):
        ids = tuple(cell.held_out.ref(item).content_id for item in batch.ids)
        scores.append(detector.score_batch(replace(batch, ids=ids)).scores)
    return torch.cat(scores).numpy()


def _frame(cell: Cell, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    frame = pd.DataFrame([row for row in _rows(cell)])
    for name, values in columns.items():
        frame[name] = values
    return frame.dropna().reset_index(drop=True)


def _rows(cell: Cell) -> Iterator[dict[str, Any]]:
    for ref in cell.held_out.slices:
        if not cell.held_out.refuses(ref.stack_id):
            yield {"unit_id": ref.slice_id, "patient_id": ref.patient_id, "label": ref.label}
