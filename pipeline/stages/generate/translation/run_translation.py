"""Task `translate`: images of one scanner or modality made into those of another, beside the same slices there.

The originals are held-out slices of the second domain, and what is worse are the same slices in the first one; so a
detector of the second domain that watches says how well it reads the first domain as it is, and translated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig
from pipeline.nn.rng import row_key
from pipeline.stages.generate.restoration.lesion_survival import Watch
from pipeline.stages.generate.restoration.paired import Problem
from pipeline.stages.generate.restoration.run_paired import open_watch, run_paired
from pipeline.stages.generate.task_images import choose_real
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import find_run, train_beside, train_for
from pipeline.stages.generate.translation.counterparts import Counterparts
from pipeline.stages.generate.translation.translation_answers import (
    plain_translations,
    require_translator,
    translations_of,
)
from pipeline.stages.generate.translation.translation_task import TranslateTask
from pipeline.stages.run.load_slices import dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.types import SetName

LEARNED_FROM = 200  # training patients whose histograms are matched, one image each


def run_translation(
    config: TranslateTask,
    settings: Settings,
    progress: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> TaskReport:
    """Translate held-out images with a model, beside other methods, matched histograms and nothing at all.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while models are trained.
        on_progress: called with (images solved, images in all).

    Raises:
        ConfigError: the run has no second domain, a method does not translate, or the detector does not see images of
            the second domain.
        ArtefactError: the detector's run is missing or not calibrated.
        EmptySelection: no held-out slice is known in both domains; see also `run_paired`.
    """
    config = name_domains(config)
    run = find_run(config, settings)
    other = run.build_other_side()
    watch = open_watch(config, other, settings)
    trained = train_for(config, settings, require_translator, progress)
    methods = [train_beside(one, config, settings, require_translator, progress) for one in config.beside]
    pairs = Counterparts.read(run, settings, _sets_of(config, watch))
    learned = _Learned.read(run, settings)
    problem = make_translation(run, pairs, learned, [*methods, trained.model.method])
    return run_paired(config, replace(trained, run=other), [problem], settings, watch, on_progress)


def name_domains(config: TranslateTask) -> TranslateTask:
    """Return the task whose translators call their domains by the names of the routes, unless they say otherwise."""
    run = config.run
    if run is None or run.towards is None:
        return config
    names = (run.data.route, run.towards.route)
    beside = tuple(one.model_copy(update={"method": _named(one.method, names)}) for one in config.beside)
    run = run.model_copy(update={"method": _named(run.method, names)})
    return config.model_copy(update={"run": run, "beside": beside})


def make_translation(run: RunConfig, pairs: Counterparts, learned: _Learned, methods: Sequence[Method]) -> Problem:
    """Return the problem: slices of the second domain, replaced by those of the first at the same place."""
    to = run.build_other_side().data.route
    answers = plain_translations(learned.source, learned.target)
    for method in methods:
        domains = getattr(method, "domains", (to,))
        answers |= translations_of(method, domains[-1])
    return Problem(f"{run.data.route} to {to}", 0.0, pairs.replace, answers, takes=pairs.has)


def _named(method: MethodConfig, names: tuple[str, str]) -> MethodConfig:
    return method.model_copy(update={"domains": names}) if getattr(method, "domains", names) is None else method


def _sets_of(config: TranslateTask, watch: Watch | None) -> tuple[SetName, ...]:
    return tuple(dict.fromkeys((*config.of, *(() if watch is None else config.judge.lesions_in))))


@dataclass(frozen=True, slots=True)
class _Learned:
    """Training images of the two domains, one per patient: [N, C, S, S] and [M, C, S, S]."""

    source: Tensor
    target: Tensor

    @classmethod
    def read(cls, run: RunConfig, settings: Settings) -> _Learned:
        """Read some of them, chosen by hash."""
        return cls(_read_one_each(run, settings), _read_one_each(run.build_other_side(), settings))


def _read_one_each(run: RunConfig, settings: Settings) -> Tensor:
    """Return an image of each of some training patients."""
    with Catalogue.open(settings) as catalogue:
        chosen = choose_real(run, settings, catalogue, ("train",))
    by_hash = sorted(chosen.slices, key=lambda ref: row_key(ref.content_id))
    each = list({ref.patient_id: ref for ref in by_hash}.values())[:LEARNED_FROM]
    data = dataset(replace(chosen, slices=tuple(each)), run, settings, cache="none", whole=False)
    if not len(data):
        raise ConfigError(f"No training image of {run.data.route} can be read. See nightread rejections.")
    return torch.stack([torch.as_tensor(data[index]["image"]).float() for index in range(len(data))])
