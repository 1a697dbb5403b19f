"""One door to every generative task: `run_task(load_task("configs/tasks/mednist.yaml"), settings)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.config import Settings
from pipeline.stages.generate.codes.edit import run_edit
from pipeline.stages.generate.codes.editing_task import EditTask
from pipeline.stages.generate.codes.traverse import run_traverse
from pipeline.stages.generate.codes.walk import run_walk
from pipeline.stages.generate.restoration.denoise import run_denoise
from pipeline.stages.generate.restoration.restoration_tasks import RestorationTask
from pipeline.stages.generate.restoration.run_restoration import run_restoration
from pipeline.stages.generate.retrieval.retrieve import run_retrieve
from pipeline.stages.generate.robustness.out_of_domain import run_out_of_domain
from pipeline.stages.generate.robustness.purify import run_purify
from pipeline.stages.generate.robustness.robustness_tasks import OutOfDomainTask, PurifyTask
from pipeline.stages.generate.sampling.run_sample import run_sample
from pipeline.stages.generate.sampling.sample import OnProgress
from pipeline.stages.generate.signals.classify_signal import run_classify
from pipeline.stages.generate.signals.signal_tasks import ClassifyTask, TokeniseTask
from pipeline.stages.generate.signals.tokenise_signal import run_tokenise
from pipeline.stages.generate.task_config import AnyTask, DenoiseTask, RetrieveTask, SampleTask, TraverseTask, WalkTask
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.training_data.synthesise_training import run_synthesise_training
from pipeline.stages.generate.training_data.training_data_task import SynthesiseTrainingTask
from pipeline.stages.generate.translation.control_task import ControlTask
from pipeline.stages.generate.translation.run_control import run_control
from pipeline.stages.generate.translation.run_translation import run_translation
from pipeline.stages.generate.translation.translation_task import TranslateTask
from pipeline.stages.generate.words.draw_words import run_text_to_image
from pipeline.stages.generate.words.personalise import run_personalise
from pipeline.stages.generate.words.word_tasks import PersonaliseTask, TextToImageTask

Runner = Callable[[Any, Settings, bool, OnProgress | None], TaskReport]


def _short(run: Callable[[Any, Settings, bool], TaskReport]) -> Runner:
    """Return the runner of a task that does not take long after its training, and reports no progress of its own."""
    return lambda config, settings, progress, _: run(config, settings, progress)


RUNNERS: dict[type, Runner] = {
    SampleTask: run_sample,
    WalkTask: _short(run_walk),
    TraverseTask: _short(run_traverse),
    EditTask: run_edit,
    DenoiseTask: run_denoise,
    RestorationTask: run_restoration,
    TranslateTask: run_translation,
    ControlTask: run_control,
    TextToImageTask: run_text_to_image,
    PersonaliseTask: run_personalise,
    RetrieveTask: run_retrieve,
    PurifyTask: run_purify,
    OutOfDomainTask: run_out_of_domain,
    SynthesiseTrainingTask: run_synthesise_training,
    TokeniseTask: _short(run_tokenise),
    ClassifyTask: _short(run_classify),
}


def run_task(
    config: AnyTask, settings: Settings, progress: bool = False, on_progress: OnProgress | None = None
) -> TaskReport:
    """Train what is missing, do what the task asks, judge, and log; a finished task is reported again.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while models are trained.
        on_progress: called with (images done, images in all) by tasks that take long after the training.

    Raises:
        ArtefactError: the trained run is missing, or its model has another SHA-256.
        ConfigError: the method cannot do what is asked of it; said before it is trained.
        EmptySelection: a set lacks the images that the task needs.
    """
    kind = next(one for one in type(config).__mro__ if one in RUNNERS)
    return RUNNERS[kind](config, settings, progress, on_progress)
