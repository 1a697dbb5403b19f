"""Task `personalise`: a rare word for one scanner or one patient, learned from a few images (DreamBooth).

Ruiz et al., arXiv:2208.12242, eq. 2: with the subject's images x and their captions c with the rare word, and images
x_pr that the model itself drew before for captions c_pr without it,

    E[ w_t || x^_theta(alpha_t x + sigma_t eps, c) - x ||^2
       + lambda w_t' || x^_theta(alpha_t' x_pr + sigma_t' eps', c_pr) - x_pr ||^2 ]

with lambda = 1: every second training image is one of x_pr. Without the second term the word's neighbours move too, and
the model forgets what it drew before. Deviation: the loss is that of `text_to_image`, whose weights w_t are its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.images.captions import Caption
from pipeline.errors import EmptySelection
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.captioned_sheet import draw_captioned
from pipeline.evaluation.image_features import embed_images
from pipeline.evaluation.style import save_png
from pipeline.methods import Model
from pipeline.nn.rng import row_key
from pipeline.stages.generate.judge import table_of
from pipeline.stages.generate.pictures import may_show, to_pixels
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel
from pipeline.stages.generate.words.draw_words import draw_prompts
from pipeline.stages.generate.words.word_court import Captioned, WordCourt, open_words
from pipeline.stages.generate.words.word_tasks import PersonaliseTask
from pipeline.training.config import TrainingConfig
from pipeline.training.fitting import fit
from pipeline.types import SliceRef

OnProgress = Callable[[int, int], None]
BEFORE, WITH, WITHOUT = "before, without the word", "with the prior's term", "without it"
SHOWN = 6


@dataclass(frozen=True, slots=True)
class Subject:
    """One scanner or patient among held-out normal images.

    Attributes:
        name: of the scanner, or "patient".
        learned, others: places of the images that are learned, and of the subject's other ones.
    """

    name: str
    learned: tuple[int, ...]
    others: tuple[int, ...]


class SubjectAndPrior:
    """Training data: the subject's images in turn, every second one followed by an image of the prior.

    Args:
        subject, prior: images [N, C, H, W] with the caption of each; an empty prior leaves its term out.
    """

    def __init__(self, subject: tuple[Tensor, Sequence[str]], prior: tuple[Tensor, Sequence[str]]) -> None:
        self.parts = [part for part in (subject, prior) if len(part[0])]

    def __len__(self) -> int:
        return len(self.parts) * max(len(images) for images, _ in self.parts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        images, captions = self.parts[index % len(self.parts)]
        row = index // len(self.parts) % len(images)
        body = torch.ones_like(images[row, :1], dtype=torch.bool)
        return {"image": images[row], "body": body, "id": f"lesson {index}", "about": {"caption": captions[row]}}


def run_personalise(
    config: PersonaliseTask, settings: Settings, progress: bool = False, on_progress: OnProgress | None = None
) -> TaskReport:
    """Teach a copy of the model a rare word, with and without the prior's term, and measure subject and prior.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while models are trained.
        on_progress: called with (models done, models in all).

    Raises:
        ArtefactError: the trained run is missing, or its model has another SHA-256.
        ConfigError: the method does not read prompts, or the run learned from what the task judges against.
        EmptySelection: no held-out subject has enough normal images, or a set lacks labelled slices.
    """
    trained, folder = open_words(config, settings, progress)
    with recorded(folder, settings) as summary:
        court = WordCourt.open(config, trained, settings)
        subject = find_subject(config, court.held_out)
        models = {BEFORE: trained.model}
        for done, name in enumerate((WITH, WITHOUT), start=1):
            models[name] = tune(config, trained, court.held_out, subject, folder, with_prior=name == WITH)
            if on_progress is not None:
                on_progress(done, 2)
        report = _report(config, court, subject, models, folder, settings)
        report.publish(config, settings)
        summary |= report.metrics
    return report


def find_subject(config: PersonaliseTask, held_out: Captioned) -> Subject:
    """Return the subject that the task names, or the one with the most held-out normal images.

    Raises:
        EmptySelection: it has too few of them, or is not among them.
    """
    places: dict[str, list[int]] = {}
    for place, ref in enumerate(held_out.slices.refs):
        if ref.label == "normal":
            places.setdefault(_name_of(config, ref), []).append(place)
    places.pop("", None)
    name = config.which or max(places, key=lambda one: (len(places[one]), row_key(config.seed, one)), default="")
    own = sorted(places.get(name, ()), key=lambda place: row_key(config.seed, held_out.slices.refs[place].content_id))
    if len(own) <= config.images:
        listed = ", ".join(f"{one} ({len(some)})" for one, some in sorted(places.items())) or "none"
        raise EmptySelection(
            f"The {config.subject} {name or 'of the task'!r} has {len(own)} held-out normal images; {config.images} "
            f"are learned, and at least one more is needed to judge. Request fewer, or choose among: "
            f"{listed if config.subject == 'scanner' else 'patients with more slices'}."
        )
    return Subject(
        name if config.subject == "scanner" else "patient", tuple(own[: config.images]), tuple(own[config.images :])
    )


def tune(
    config: PersonaliseTask,
    trained: TrainedModel,
    held_out: Captioned,
    subject: Subject,
    folder: TaskFolder,
    with_prior: bool,
) -> Model:
    """Return a copy of the model that has learned the rare word; an interrupted training continues."""
    own = [held_out.captions[place] for place in subject.learned]
    texts = [replace(one, subject=config.word).write() for one in own]
    prior = [own[number % len(own)] for number in range(config.prior if with_prior else 0)]
    drawn = draw_prompts(config, trained.model, prior, 1.0) if prior else torch.zeros(0)
    images = held_out.slices.images[list(subject.learned)]
    data = SubjectAndPrior((images, texts), (drawn, [one.write() for one in prior]))
    method = copy.deepcopy(trained.model.method).train()
    method.phases = (replace(method.phases[0], lr=config.lr),)
    training = TrainingConfig(
        images=config.tuning * len(data.parts), batch_size=8, ema_decay=0.9, patience=None, clip_norm=1.0,
        seed=config.seed, validate_every_images=config.tuning * len(data.parts),
    )  # fmt: skip
    place = folder.path / ("tuned-with-prior" if with_prior else "tuned-without-prior")
    tuned = fit(method, data, None, training, place).method
    return replace(trained.model, method=tuned.eval())


def measure_rank(images: Tensor, held_out: Captioned, subject: Subject) -> tuple[Estimate, float]:
    """Return the median rank of the subject's nearest other image among held-out normals, and that share of neighbours.

    For each drawn image, held-out normal images that were not learned are sorted by their distance in features. Rank 1:
    the nearest real image is the subject's. The second number is the share of the subject's among the ten nearest.
    """
    refs = held_out.slices.refs
    normal = [place for place, ref in enumerate(refs) if ref.label == "normal" and place not in subject.learned]
    own = np.isin(normal, subject.others)
    distances = cdist(embed_images(images), embed_images(held_out.slices.images[normal]))
    sorted_own = own[np.argsort(distances, axis=1)]
    ranks = sorted_own.argmax(axis=1) + 1
    low, high = np.quantile(ranks, [0.25, 0.75])
    return Estimate(value=float(np.median(ranks)), low=float(low), high=float(high)), float(sorted_own[:, :10].mean())


def _name_of(config: PersonaliseTask, ref: SliceRef) -> str:
    return ref.patient_id if config.subject == "patient" else str(ref.attributes.get("scanner", ""))


def _report(
    config: PersonaliseTask,
    court: WordCourt,
    subject: Subject,
    models: Mapping[str, Model],
    folder: TaskFolder,
    settings: Settings,
) -> TaskReport:
    captions = [court.held_out.captions[place] for place in subject.learned]
    asked = [captions[number % len(captions)] for number in range(config.each)]
    mixture = court.mixture(config.count, config.seed)
    lines, numbers, pictures = [], dict[str, float](), list[tuple[Tensor, Caption]]()
    first = 0.0
    for name, model in models.items():
        words = [replace(one, subject="" if name == BEFORE else config.word) for one in asked]
        drawn = draw_prompts(config, model, words, config.guidance)
        rank, share = measure_rank(drawn, court.held_out, subject)
        kid = court.judge.judge(draw_prompts(config, model, mixture, config.guidance)).kid
        first = first or kid.value
        change = f"{100 * (kid.value / first - 1):+.0f} %" if name != BEFORE else ""
        line = {"model": name, "rank of the subject (quartiles)": rank.text(0), "among the ten nearest": f"{share:.2f}"}
        lines.append({**line, "KID of other prompts": kid.text(2), "change": change})
        key = {BEFORE: "before", WITH: "with_prior", WITHOUT: "without_prior"}[name]
        numbers |= {f"rank_{key}": rank.value, f"near_{key}": share, f"kid_{key}": kid.value}
        pictures += list(zip(drawn[:SHOWN], words[:SHOWN], strict=True))
    _draw(config, court.held_out, subject, pictures, folder, settings)
    normal = sum(ref.label == "normal" for ref in court.held_out.slices.refs) - len(subject.learned)
    text = (
        f"{len(subject.learned)} images of {subject.name}, whose {len(subject.others)} other images are "
        f"{len(subject.others) / normal:.2f} of the {normal} held-out normals.\n\n"
    )
    return TaskReport(folder, text + table_of(lines), numbers, tuple(lines), tuple(_warn(numbers)))


def _draw(
    config: PersonaliseTask,
    held_out: Captioned,
    subject: Subject,
    pictures: Sequence[tuple[Tensor, Caption]],
    folder: TaskFolder,
    settings: Settings,
) -> None:
    real = [place for place in subject.learned[:SHOWN] if may_show(held_out.slices.refs[place], settings)]
    rows = [(held_out.slices.images[place], "real, learned") for place in real]
    rows += [(torch.full_like(held_out.slices.images[0], -1.0), "")] * (SHOWN - len(rows))
    rows += [(image, caption.write()) for image, caption in pictures]
    images = to_pixels(torch.stack([image for image, _ in rows]))
    title = f"{config.name}: the word {config.word} for {subject.name}; before, with and without the prior's term"
    save_png(draw_captioned(images, [caption for _, caption in rows], title), folder.sheet)


def _warn(numbers: Mapping[str, float]) -> list[str]:
    warnings = []
    if numbers["rank_with_prior"] >= numbers["rank_before"]:
        warnings.append("Images with the rare word are not nearer to the subject than those without it")
    if numbers["kid_with_prior"] > 1.1 * numbers["kid_before"]:
        warnings.append("The prior is not kept: KID of other prompts rose by more than a tenth")
    return warnings
