"""Task `denoise`: noise of stated strength added to held-out images, and removed by a model and by plain filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pipeline.config import Settings
from pipeline.corruption.added_noise import AddedNoiseConfig, add_noise
from pipeline.corruption.degrade import DegradationConfig
from pipeline.corruption.degrade_fields import RestoringFields
from pipeline.corruption.degrade_noise import GaussianNoise
from pipeline.methods.base import Method
from pipeline.nn.rng import Rng
from pipeline.stages.generate.restoration.classical_denoisers import TUNED_ON, keep, tune_denoisers
from pipeline.stages.generate.restoration.model_answer import answer_of, require_answer
from pipeline.stages.generate.restoration.paired import Degrade, Problem, read_held_out
from pipeline.stages.generate.restoration.run_paired import open_watch, run_paired
from pipeline.stages.generate.restoration.run_restoration import say_unlearned
from pipeline.stages.generate.task_config import DenoiseTask
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import TrainedModel, find_run, train_for
from pipeline.types import Batch


def run_denoise(
    config: DenoiseTask,
    settings: Settings,
    progress: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> TaskReport:
    """Denoise held-out images with a model, beside doing nothing, a Gaussian filter and non-local means.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while the model is trained.
        on_progress: called with (images denoised, images in all).

    Raises:
        ConfigError: the method gives no image for an image, or the detector does not see the same images.
        ArtefactError: the detector's run is missing or not calibrated.
        EmptySelection: see `run_paired`.
    """
    watch = open_watch(config, find_run(config, settings), settings)
    trained = train_for(config, settings, require_answer, progress)
    problems = make_problems(config, trained, settings)
    warnings = tuple(warn_of_strengths(config, trained.model.method))
    return run_paired(config, trained, problems, settings, watch, on_progress, warnings)


def warn_of_strengths(config: DenoiseTask, method: Method) -> Iterator[str]:
    """Yield a sentence for each strength of noise that a method which learns degradations never learned to remove."""
    if not isinstance(method.config, RestoringFields):
        return
    learned = method.config.ways
    for std in config.strengths:
        way = DegradationConfig(noise=GaussianNoise(std=std))
        if config.noise != "gaussian" or way not in learned:
            yield say_unlearned(method, f"{config.noise} noise {std:g}", learned)


def make_problems(config: DenoiseTask, trained: TrainedModel, settings: Settings) -> list[Problem]:
    """Return one problem per strength; the plain filters are tuned on training images, degraded in the same way."""
    learned = read_held_out(trained, settings, ("train",), TUNED_ON, config.seed).batches
    return [_make_problem(config, std, trained, learned) for std in dict.fromkeys(config.strengths)]


def _make_problem(config: DenoiseTask, std: float, trained: TrainedModel, learned: Sequence[Batch]) -> Problem:
    plain = Problem(f"{config.noise} noise {std:g}", std, _with_noise(config, std), {"nothing": keep})
    filters = tune_denoisers(plain, learned, std, config.seed)
    method = trained.model.method
    return replace(plain, answers={**plain.answers, **filters, method.config.name: answer_of(method)})


def _with_noise(config: DenoiseTask, std: float) -> Degrade:
    noise = AddedNoiseConfig(kind=config.noise, std=std)

    def degrade(batch: Batch, rng: Rng) -> Batch:
        return replace(batch, images=add_noise(batch.images, batch.body, noise, rng))

    return degrade
