"""One door to every generative task: `run_task(load_task("configs/tasks/mednist.yaml"), settings)`."""

from __future__ import annotations

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
from pipeline.stages.generate.task_config import AnyTask, DenoiseTask, RetrieveTask, SampleTask, TraverseTask
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.training_data.synthesise_training import run_synthesise_training
from pipeline.stages.generate.training_data.training_data_task import SynthesiseTrainingTask
from pipeline.stages.generate.translation.run_translation import run_translation
from pipeline.stages.generate.translation.translation_task import TranslateTask
from pipeline.stages.generate.words.draw_words import run_text_to_image
from pipeline.stages.generate.words.personalise import run_personalise
from pipeline.stages.generate.words.word_tasks import PersonaliseTask, TextToImageTask


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
    if isinstance(config, SampleTask):
        return run_sample(config, settings, progress, on_progress)
    if isinstance(config, TraverseTask):
        return run_traverse(config, settings, progress)
    if isinstance(config, ClassifyTask):
        return run_classify(config, settings, progress)
    if isinstance(config, TokeniseTask):
        return run_tokenise(config, settings, progress)
    if isinstance(config, DenoiseTask):
        return run_denoise(config, settings, progress, on_progress)
    if isinstance(config, RestorationTask):
        return run_restoration(config, settings, progress, on_progress)
    if isinstance(config, EditTask):
        return run_edit(config, settings, progress, on_progress)
    if isinstance(config, TranslateTask):
        return run_translation(config, settings, progress, on_progress)
    if isinstance(config, PersonaliseTask):
        return run_personalise(config, settings, progress, on_progress)
    if isinstance(config, TextToImageTask):
        return run_text_to_image(config, settings, progress, on_progress)
    if isinstance(config, RetrieveTask):
        return run_retrieve(config, settings, progress, on_progress)
    if isinstance(config, PurifyTask):
        return run_purify(config, settings, progress, on_progress)
    if isinstance(config, OutOfDomainTask):
        return run_out_of_domain(config, settings, progress, on_progress)
    if isinstance(config, SynthesiseTrainingTask):
        return run_synthesise_training(config, settings, progress, on_progress)
    return run_walk(config, settings, progress)
