"""Task `out-of-domain`: does a gate before the detectors refuse what they should not decide about?

Each class of a route is a domain in turn (or the whole route is the only one). A gate is fitted on its training images
and calibrated on its held-out normals; strangers are the other classes, corrupted and attacked images of the domain.
The change by purification is a second opinion. Every gate is kept in the task's folder.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.detection.conformal import Calibration, Unit
from pipeline.detection.domain_gate import DomainGate, GateConfig, fit_gate, save_gate
from pipeline.errors import EmptySelection
from pipeline.evaluation.attacks import attack
from pipeline.methods.stored_model import images_of
from pipeline.nn.rng import Rng
from pipeline.stages.generate.restoration.paired import HeldOut, read_held_out
from pipeline.stages.generate.robustness.defences import require_purifier
from pipeline.stages.generate.robustness.robustness_tasks import OutOfDomainTask
from pipeline.stages.generate.robustness.second_opinion import purification_change, standardise
from pipeline.stages.generate.robustness.stranger_report import report_strangers
from pipeline.stages.generate.robustness.strangers import CORRUPTIONS
from pipeline.stages.generate.robustness.victims import Victim, learn_classifier, words_of
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel, train_for

WHOLE = "the route"
CHANGE, BOTH = "purification's change", "both"

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Images:
    """Images of a domain or strangers, with what seeds and names them."""

    x: Tensor
    ids: tuple[str, ...]
    patients: tuple[str, ...]

    def some(self, places: Sequence[int]) -> Images:
        """Return some of them."""
        ids, patients = (tuple(column[place] for place in places) for column in (self.ids, self.patients))
        return Images(self.x[list(places)], ids, patients)


@dataclass(slots=True)
class Opinions:
    """Scores by opinion and kind of image, divided by the opinion's threshold: above 1 is refused.

    Attributes:
        scores, patients: by opinion and kind; "domain" is the kind of those that should pass.
        seconds: CPU seconds and number of images, by opinion.
        gates: SHA-256 of each domain's gate.
    """

    scores: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    patients: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    gates: dict[str, str] = field(default_factory=dict)


def run_out_of_domain(
    config: OutOfDomainTask, settings: Settings, progress: bool = False, on_progress: OnProgress | None = None
) -> TaskReport:
    """Fit a gate for each domain, show it strangers, and report how many it refuses.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while the model is trained.
        on_progress: called with (domains done, domains).

    Raises:
        ConfigError: the method cannot purify, it sees volumes, or there is one class only where classes are domains.
        EmptySelection: a set or a class has too few images.
        TooFewNormals: a domain has too few held-out patients for the share that may be refused.
    """
    trained = train_for(config, settings, require_purifier, progress)
    folder = trained.make_folder(config, settings)
    with recorded(folder, settings) as summary:
        learned, checked, asked = (
            read_held_out(trained, settings, sets, count, config.seed)
            for sets, count in ((("train",), config.learn), (("validate",), config.learn), (config.of, config.count))
        )
        attacked = _attack(config, trained, asked, settings)
        opinions = Opinions()
        domains = sorted(set(_words(config, learned)))
        pictured: dict[str, Tensor] = {}
        for number, domain in enumerate(domains, start=1):
            fitting, held_out = (_of(config, one, domain) for one in (learned, checked))
            kinds = dict(_kinds(config, domain, asked, attacked))
            _ask(config, trained, domain, (fitting, held_out), kinds, folder, opinions)
            pictured |= {kind: one.x for kind, one in kinds.items() if kind not in pictured}
            if on_progress is not None:
                on_progress(number, len(domains))
        report = report_strangers(config, trained, folder, opinions, pictured, settings, asked)
        report.publish(config, settings)
        summary |= report.metrics
    return report


def _words(config: OutOfDomainTask, images: HeldOut) -> list[str]:
    about = [row for batch in images.batches for row in batch.about]
    return words_of(about, config.domains) if config.domains else [WHOLE] * len(about)


def _all(images: HeldOut) -> Images:
    x = torch.cat([batch.images for batch in images.batches])
    return Images(x, tuple(item for batch in images.batches for item in batch.ids), tuple(images.patients))


def _of(config: OutOfDomainTask, images: HeldOut, domain: str) -> Images:
    """Return the images of a domain.

    Raises:
        EmptySelection: it has no images.
    """
    places = [place for place, word in enumerate(_words(config, images)) if word == domain]
    if not places:
        raise EmptySelection(
            f"No held-out image is of the domain {domain!r}, so its gate cannot be calibrated or judged. Add scans, or "
            "choose other `domains`."
        )
    return _all(images).some(places)


def _kinds(
    config: OutOfDomainTask, domain: str, asked: HeldOut, attacked: Tensor | None
) -> Iterator[tuple[str, Images]]:
    """Yield the images of the domain, and every kind of strangers."""
    whole, words = _all(asked), _words(config, asked)
    own = [place for place, word in enumerate(words) if word == domain]
    others = [place for place, word in enumerate(words) if word != domain]
    inside = _of(config, asked, domain)
    yield "domain", inside
    if others:
        yield "other classes", whole.some(others)
    for kind, corrupt in CORRUPTIONS.items():
        rng = Rng.scoring(config.seed, inside.ids).fork(kind)
        yield kind, Images(corrupt(inside.x, rng), inside.ids, inside.patients)
    if attacked is not None:
        yield "attacked", Images(attacked[own], inside.ids, inside.patients)


def _attack(config: OutOfDomainTask, trained: TrainedModel, asked: HeldOut, settings: Settings) -> Tensor | None:
    """Return the held-out images, attacked so that a classifier takes them for another class; None without classes."""
    if not config.classes:
        return None
    victim: Victim = learn_classifier(config.classes, config.learn, config.seed, asked, trained, settings)
    parts = []
    for batch in asked.batches:
        rng = Rng.scoring(config.seed, batch.ids).fork("attack")
        parts.append(attack(victim.objective(batch), batch.images, rng, config.attack))
    return torch.cat(parts)


def _ask(
    config: OutOfDomainTask,
    trained: TrainedModel,
    domain: str,
    known_images: tuple[Images, Images],
    kinds: Mapping[str, Images],
    folder: TaskFolder,
    opinions: Opinions,
) -> None:
    """Ask every opinion about every kind, and add the answers."""
    fitting, held_out = known_images
    gates: dict[str, DomainGate] = {}
    for density in ("gaussian", "neighbours"):
        wanted_gate = GateConfig.model_validate({**config.gate.model_dump(), "density": density})
        plain = fit_gate(
            fitting.x, wanted_gate, route=trained.run.data.route, images=images_of(trained.model.normaliser, None)
        )
        gates[density] = plain.calibrated(_units(held_out, plain.score(held_out.x)))
    chosen = gates[config.gate.density]
    place = re.sub(r"\W+", "-", domain).strip("-").lower() or "route"
    opinions.gates[domain] = save_gate(folder.path / "gates" / place, chosen)

    def change(images: Images) -> np.ndarray:
        rng = Rng.scoring(config.seed, images.ids).fork("second opinion")
        return purification_change(trained.model.method, images.x, rng, config.time, config.steps, config.draws)

    asked = {**kinds, "": held_out}
    raw = {
        name: {kind: _timed(opinions, name, work, images) for kind, images in asked.items()}
        for name, work in (
            ("gaussian", lambda images: gates["gaussian"].score(images.x)),
            ("neighbours", lambda images: gates["neighbours"].score(images.x)),
            (CHANGE, change),
        )
    }
    raw[BOTH] = {
        kind: np.maximum(*(standardise(raw[name][kind], raw[name][""]) for name in (config.gate.density, CHANGE)))
        for kind in asked
    }
    for name, scores in raw.items():
        low = min(0.0, float(np.min(scores[""])))  # a ratio needs scores above 0
        units = _units(held_out, scores[""] - low)
        threshold = max(Calibration.fit(units).threshold(config.gate.false_rejection).value, 1e-12)
        for kind in kinds:
            opinions.scores[name, kind].append((scores[kind] - low) / threshold)
    for kind, images in kinds.items():
        opinions.patients[kind].extend(images.patients)


def _timed(opinions: Opinions, name: str, work: Callable[[Images], np.ndarray], images: Images) -> np.ndarray:
    began = time.process_time()
    scores = work(images)
    opinions.seconds[name][0] += time.process_time() - began
    opinions.seconds[name][1] += len(scores)
    return scores


def _units(images: Images, scores: np.ndarray) -> list[Unit]:
    return [
        Unit(item, patient, float(score))
        for item, patient, score in zip(images.ids, images.patients, scores, strict=True)
    ]
