"""Task `classify-signal`: a transformer pre-trained on the codes of recordings, fine-tuned to name what they show.

After VQ-MAE-S (arXiv:2305.03568): pre-training hides codes and needs no label. The question is what it is worth, so the
same transformer from scratch, logistic regression on frozen codes, and nearest neighbours of the recordings themselves
are compared with it, with a share of the labels and with all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import EmptySelection
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.real_images import codes_of
from pipeline.evaluation.style import save_png
from pipeline.methods.vq_vae import VectorQuantisedAutoencoder
from pipeline.nn.rng import row_key
from pipeline.stages.generate.signals.label_curve import draw_label_curve
from pipeline.stages.generate.signals.masked_codes import MaskedCodes, Sequences, learn, predict, summarise
from pipeline.stages.generate.signals.signal_tasks import ClassifyTask
from pipeline.stages.generate.signals.signal_truth import Truth, read_truth
from pipeline.stages.generate.signals.signal_units import require_signals
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_images import BATCH, Slices, read_real
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel, train_for
from pipeline.stages.run.load_slices import choose
from pipeline.training.config import TrainingConfig

Answers = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Task:
    """Recordings as codes and as they are, their classes, and the places of those that teach and those that test.

    `more` are codes of other recordings, which only pre-training reads.
    """

    vocabulary: int
    codes: Tensor
    more: Tensor
    images: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]
    patients: Sequence[str]
    taught: np.ndarray
    tested: np.ndarray


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One way to classify with a share of the labels: how many, and the accuracy with its interval over patients."""

    name: str
    labels: int
    accuracy: Estimate


def run_classify(config: ClassifyTask, settings: Settings, progress: bool = False) -> TaskReport:
    """Train what is missing, classify held-out recordings in five ways, draw, and log.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while the codec is trained.

    Raises:
        ConfigError: the method does not write signals in units, or the truth is not valid.
        EmptySelection: fewer than two classes, or a class that no recording teaches.
    """
    truth = read_truth(config.truth, settings)
    trained = train_for(config, settings, require_signals, progress)
    folder = trained.make_folder(config, settings)
    with recorded(folder, settings) as summary:
        task = _read(config, trained, truth, settings)
        rows = _classify(config, task, folder)
        save_png(draw_label_curve([(row.name, row.labels, row.accuracy) for row in rows], config.name), folder.sheet)
        report = TaskReport(folder, _table(rows), _metrics(rows, config), _json(rows), _warn(rows, config))
        report.publish(config, settings)
        summary |= report.metrics
    return report


def _read(config: ClassifyTask, trained: TrainedModel, truth: Truth, settings: Settings) -> Task:
    with Catalogue.open(settings) as catalogue:
        sets = (config.of, config.pretrained_on)
        chosen, others = (choose(catalogue, trained.run, settings, sets=one) for one in sets)
    slices = _with_truth(read_real(chosen, trained.run, settings, trained.model), truth)
    names = tuple(sorted({truth[ref.instance_id][0].unit for ref in slices.refs}))
    classes = np.array([names.index(truth[ref.instance_id][0].unit) for ref in slices.refs])
    method = cast(VectorQuantisedAutoencoder, trained.model.method)
    codes = _tokens(method, slices.images)
    more = codes[:0]
    if others.slices:
        more = _tokens(method, read_real(others, trained.run, settings, trained.model).images)
    tests = np.array([row_key(config.seed, "test", name) % 1000 < 1000 * config.tested for name in slices.patients])
    taught, tested = np.flatnonzero(~tests), np.flatnonzero(tests)
    if len(names) < 2 or set(classes[taught]) != set(classes):
        raise EmptySelection(
            f"{len(taught)} recordings with truth teach {len(set(classes[taught]))} of {len(names)} classes, and "
            "at least two, and all of them, are needed. Add recordings, or name more sets in `of`."
        )
    pixels = slices.images.flatten(1).numpy()
    return Task(method.vocabulary, codes, more, pixels, classes, names, slices.patients, taught, tested)


def _tokens(method: VectorQuantisedAutoencoder, images: Tensor) -> Tensor:
    return torch.cat([method.to_tokens(part).cpu() for part in images.split(BATCH)])


def _with_truth(slices: Slices, truth: Truth) -> Slices:
    places = [place for place, ref in enumerate(slices.refs) if truth.get(ref.instance_id)]
    if not places:
        raise EmptySelection(
            f"None of {len(slices.refs)} recordings is in the truth. Check its SOPInstanceUID, and that it belongs to "
            "this workspace."
        )
    return Slices(slices.images[places], tuple(slices.refs[place] for place in places))


def _classify(config: ClassifyTask, task: Task, folder: TaskFolder) -> list[ClassRow]:
    size = config.transformer.model_copy(
        update={"vocabulary": task.vocabulary, "length": task.codes.shape[1], "classes": len(task.names)}
    )
    at = folder.path / "training"
    codes = torch.cat([task.codes[task.taught], task.more])
    unlabelled = Sequences(codes, [0] * len(codes))
    start = learn(size, unlabelled, _training(config, config.pretraining_images), at / "pretrained")
    rows: list[ClassRow] = []
    for share in config.shares:
        few = _share(task, share, config.seed)
        answers = _frozen(task, few, start)
        own = size.model_copy(update={"learns": "classes"})
        data = Sequences(task.codes[few], task.classes[few].tolist())
        for name, first in (("transformer from scratch", None), ("transformer pre-trained on codes", start)):
            place = at / f"{'scratch' if first is None else 'tuned'}-{share:g}"
            method = learn(own, data, _training(config, config.tuning_images), place, first)
            answers[name] = predict(method, task.codes[task.tested]).numpy()
        rows += [ClassRow(name, len(few), _accuracy(task, answer)) for name, answer in answers.items()]
    return rows


def _training(config: ClassifyTask, images: int) -> TrainingConfig:
    return TrainingConfig(
        images=images, batch_size=config.batch, seed=config.seed, ema_decay=0.98, schedule="cosine", clip_norm=1.0,
        validate_every_images=images, patience=None,
    )  # fmt: skip


def _share(task: Task, share: float, seed: int) -> np.ndarray:
    """Return the places of a share of each class, at least one, chosen by hash: a larger share holds a smaller one."""
    chosen: list[int] = []
    for one in sorted(set(task.classes[task.taught])):
        own = [place for place in task.taught if task.classes[place] == one]
        by_hash = sorted(own, key=lambda place: row_key(seed, "label", task.patients[place]))
        chosen += by_hash[: max(1, round(share * len(own)))]
    return np.array(sorted(chosen))


def _frozen(task: Task, few: np.ndarray, start: MaskedCodes) -> Answers:
    """Return the answers of what learns no representation: a constant, neighbours, linear models on frozen codes."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    histogram = torch.nn.functional.one_hot(task.codes).float().mean(dim=1).numpy()
    seen = summarise(start, task.codes).numpy()

    def linear() -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))

    models: dict[str, tuple[Any, np.ndarray]] = {
        "most frequent class": (DummyClassifier(), task.images),
        "nearest recordings": (KNeighborsClassifier(min(5, len(few))), task.images),
        "frozen codes, counted": (linear(), histogram),
        "frozen transformer": (linear(), seen),
    }
    return {
        name: model.fit(values[few], task.classes[few]).predict(values[task.tested])
        for name, (model, values) in models.items()
    }


def _accuracy(task: Task, answer: np.ndarray) -> Estimate:
    right = (answer == task.classes[task.tested]).astype(float)
    owners = codes_of([task.patients[place] for place in task.tested])
    sums, counts = np.bincount(owners, right), np.bincount(owners)
    bootstrap = PatientBootstrap.draw(np.zeros(len(counts), int), EvaluationConfig())
    sampled = bootstrap.sample(lambda weights: ((weights @ sums) / (weights @ counts))[:, None], len(counts))
    return bootstrap.estimates(sampled)[0]


def _table(rows: Sequence[ClassRow]) -> str:
    labels = sorted({row.labels for row in rows})
    names = list(dict.fromkeys(row.name for row in rows))
    by_place = {(row.name, row.labels): row.accuracy.text() for row in rows}
    headers = ["accuracy by", *(f"{count} labels" for count in labels)]
    return markdown_table(headers, [[name, *(by_place.get((name, count), "") for count in labels)] for name in names])


def _metrics(rows: Sequence[ClassRow], config: ClassifyTask) -> dict[str, float]:
    count = len(rows) // len(config.shares)
    metrics: dict[str, float] = {}
    for number, share in enumerate(config.shares):
        *_, scratch, tuned = rows[number * count : (number + 1) * count]
        metrics |= {f"tuned_{share:g}": tuned.accuracy.value, f"scratch_{share:g}": scratch.accuracy.value}
    return metrics


def _json(rows: Sequence[ClassRow]) -> tuple[dict[str, object], ...]:
    return tuple(
        {"by": row.name, "labels": row.labels, "accuracy": row.accuracy.model_dump(mode="json")} for row in rows
    )


def _warn(rows: Sequence[ClassRow], config: ClassifyTask) -> tuple[str, ...]:
    metrics = _metrics(rows, config)
    return tuple(
        f"With {share:.0%} of the labels pre-training does not pay: {metrics[f'tuned_{share:g}']:.3f} against "
        f"{metrics[f'scratch_{share:g}']:.3f} from scratch."
        for share in config.shares
        if metrics[f"tuned_{share:g}"] <= metrics[f"scratch_{share:g}"]
    )
