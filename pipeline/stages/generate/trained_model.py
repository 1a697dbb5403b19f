"""The model of a generative task: trained if it is missing, checked before that, and the folder of what it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pipeline.config import Settings
from pipeline.methods import Model, load_model
from pipeline.methods.base import Method
from pipeline.stages.detect.build_run_method import build_untrained
from pipeline.stages.detect.train import train
from pipeline.stages.generate.task_base import BesideConfig, BesideTask, TaskConfig, TrainedRun
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_images import choose_before_training
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model that a task uses, and the run that trained it."""

    run_id: str
    run: RunConfig
    model: Model

    @property
    def sha256(self) -> str:
        """The model's SHA-256."""
        return "" if self.model.origin is None else self.model.origin.sha256

    def make_folder(self, config: TaskConfig, settings: Settings, **more: Any) -> TaskFolder:
        """Return the folder of a task with this model: the same configuration and model have the same one.

        Args:
            config: the task; one of the classes with a field `task`.
            settings: the workspace.
            more: JSON that task.json holds too.
        """
        route, values = self.run.data.route, config.model_dump(mode="json")
        facts = {"run": self.run_id, "method": self.run.method.name, "model_sha256": self.sha256, "route": route}
        task_id = f"{route}-{values['task']}-{config.fingerprint()[:6]}{self.sha256[:6]}"
        return TaskFolder.make(settings, task_id, {"config.json": values, "task.json": {**facts, **more}})


def train_for(
    config: TaskConfig, settings: Settings, check: Callable[[Method], None], progress: bool = False
) -> TrainedModel:
    """Return the task's model, trained if it is not trained yet.

    Args:
        config: the task.
        settings: the workspace.
        check: raises an error if a method cannot do what is asked of it; called before the training where that is
            possible, that is unless a component is a trained model.
        progress: show a progress bar while it trains.

    Raises:
        ArtefactError: the trained run is missing, or its model has another SHA-256.
        ConfigError: from `check`.
        EmptySelection: the sets that the task begins with have no images; said before it is trained.
    """
    if config.run is not None and config.begins_with:
        choose_before_training(config.run, settings, config.begins_with)
    folder = _train(config, settings, check, progress)
    sha256 = None if config.trained is None else config.trained.sha256
    model = load_model(folder.model, sha256, device="auto")
    check(model.method)
    return TrainedModel(folder.run_id, folder.read_config(), model)


def find_run(config: TaskConfig, settings: Settings) -> RunConfig:
    """Return the run of a task's model, trained or not.

    Raises:
        ArtefactError: the trained run is missing.
    """
    if config.run is not None:
        return config.run
    return RunFolder.find(settings, cast(TrainedRun, config.trained).run).read_config()


def _train(config: TaskConfig, settings: Settings, check: Callable[[Method], None], progress: bool) -> RunFolder:
    run = config.run
    if run is None:
        return RunFolder.find(settings, cast(TrainedRun, config.trained).run)
    if not any(one.trained for one in run.method.components().values()):
        check(build_untrained(run, {}))
    return RunFolder.open(train(run, settings, progress=progress, purpose="model"))


def train_beside(
    one: BesideConfig, config: BesideTask, settings: Settings, check: Callable[[Method], None], progress: bool = False
) -> Method:
    """Return another method, trained on the images of the task's own model unless it is trained already.

    Raises:
        ConfigError: from `check`.
    """
    run = find_run(config, settings)
    training = run.training if one.images is None else run.training.model_copy(update={"images": one.images})
    update = {"name": f"{run.name}-{one.method.name}", "method": one.method, "training": training, "detection": None}
    run = run.model_copy(update=update)
    check(build_untrained(run, {}))
    return load_model(RunFolder.open(train(run, settings, progress=progress, purpose="model")).model).method
