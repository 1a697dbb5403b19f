"""Tasks `super-resolve`, `inpaint`, `outpaint` and `restore`: one task with another degradation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.config import Settings
from pipeline.corruption.degrade import DegradationConfig
from pipeline.corruption.degrade_fields import RestoringFields
from pipeline.data.sets.routes import load_routes
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig
from pipeline.nn.rng import Rng
from pipeline.stages.generate.restoration.classical_denoisers import TUNED_ON, tune
from pipeline.stages.generate.restoration.classical_restorers import plain_answers
from pipeline.stages.generate.restoration.known_degradation import KnownDegradation
from pipeline.stages.generate.restoration.paired import Problem, read_held_out
from pipeline.stages.generate.restoration.restoration_answers import answers_of_model, require_restorer
from pipeline.stages.generate.restoration.restoration_tasks import RestorationTask
from pipeline.stages.generate.restoration.run_paired import open_watch, run_paired
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import TrainedModel, find_run, train_beside, train_for
from pipeline.stages.run.run_config import RunConfig

MEASURES = {"rician": ("MR",), "poisson": ("CR", "DX", "CT", "MG", "RF", "XA")}  # modalities that a noise belongs to


def run_restoration(
    config: RestorationTask,
    settings: Settings,
    progress: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> TaskReport:
    """Undo a degradation of held-out images with a model, beside other methods and classical answers.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while models are trained.
        on_progress: called with (images solved, images in all).

    Raises:
        ConfigError: a method gives no image for an image, a degradation does not fit the images or their modality, or
            the detector does not see the same images.
        ArtefactError: the detector's run is missing or not calibrated.
        EmptySelection: see `run_paired`.
    """
    config = teach_ways(config)
    run = find_run(config, settings)
    check_fit(config.ways, run, settings)
    watch = open_watch(config, run, settings)
    trained = train_for(config, settings, require_restorer, progress)
    others: dict[str, Method] = {
        one.method.name: train_beside(one, config, settings, require_restorer, progress) for one in config.beside
    }
    problems = make_restorations(config, trained, others, settings)
    warnings = warn_of_unlearned([*others.values(), trained.model.method], config.ways)
    return run_paired(config, trained, problems, settings, watch, on_progress, tuple(warnings))


def warn_of_unlearned(methods: Sequence[Method], ways: Sequence[DegradationConfig]) -> Iterator[str]:
    """Yield a sentence for each degradation that a method is asked to undo and never learned.

    Only a method that learns degradations can lack one: a `ddpm` or a reconstructor learns none.
    """
    for method in methods:
        learned = method.config.ways if isinstance(method.config, RestoringFields) else ways
        for way in ways:
            if way not in learned:
                yield say_unlearned(method, way.label, learned)


def say_unlearned(method: Method, asked: str, learned: Sequence[DegradationConfig]) -> str:
    """Return the sentence that a method is asked to undo what it never learned."""
    return (
        f"{asked}: {method.config.name} never learned to undo this; it learned "
        f"{', '.join(one.label for one in learned)}, perhaps with other settings. Train it for the task "
        "by `run` in place of `trained`, or ask for what it learned."
    )


def teach_ways(config: RestorationTask) -> RestorationTask:
    """Return the task whose methods learn its degradations, where they do not say what they learn."""
    beside = tuple(one.model_copy(update={"method": _learning(one.method, config.ways)}) for one in config.beside)
    run = config.run
    if run is not None:
        run = run.model_copy(update={"method": _learning(run.method, config.ways)})
    return config.model_copy(update={"run": run, "beside": beside})


def _learning(method: MethodConfig, ways: Sequence[DegradationConfig]) -> MethodConfig:
    if getattr(method, "degradations", ways) is None:
        return method.model_copy(update={"degradations": tuple(ways)})
    return method


def check_fit(ways: Sequence[DegradationConfig], run: RunConfig, settings: Settings) -> None:
    """Refuse degradations that do not fit the images of a run, before anything is trained (ConfigError)."""
    modalities = next((one.modality for one in load_routes(settings.routes_folder) if one.name == run.data.route), ())
    size = run.data.normaliser.image_size
    for way in ways:
        way.operator(Rng([0]), (size, size))  # draws once, and refuses what does not fit
        kind = "" if way.noise is None else way.noise.kind
        fitting = MEASURES.get(kind)
        if fitting is not None and modalities and not set(modalities) & set(fitting):
            raise ConfigError(
                f"{kind} noise belongs to {', '.join(fitting)}, but the route {run.data.route} is of "
                f"{', '.join(modalities)}. Choose gaussian noise, or another route."
            )


def make_restorations(
    config: RestorationTask, trained: TrainedModel, others: Mapping[str, Method], settings: Settings
) -> list[Problem]:
    """Return one problem per degradation; classical answers are set on training images, degraded in the same way."""
    learned = read_held_out(trained, settings, ("train",), TUNED_ON, config.seed).batches
    methods = [*others.values(), trained.model.method]

    def problems() -> Iterator[Problem]:
        """Yield them in order."""
        for number, way in enumerate(config.ways):
            degradation = KnownDegradation(way, config.seed)
            level = _level(degradation.name, number)
            plain, settable = plain_answers(degradation)
            problem = Problem(degradation.name, level, degradation.degrade, plain, degradation.region)
            answers = plain | tune(problem, learned, settable, config.seed)
            for method in methods:
                answers |= answers_of_model(method, degradation, config.posterior)
            yield Problem(degradation.name, level, degradation.degrade, answers, degradation.region)

    return list(problems())


def _level(name: str, number: int) -> float:
    """Return the number that a problem's name ends with, else its place among the problems."""
    try:
        return float(name.rpartition(" ")[2])
    except ValueError:
        return float(number)
