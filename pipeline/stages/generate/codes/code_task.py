"""Run a task that moves in the code of one trained model: a walk, or a traversal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Codec
from pipeline.stages.generate.task_base import TaskConfig
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel, train_for

TaskT = TypeVar("TaskT", bound=TaskConfig)
Work = Callable[[TaskT, TrainedModel, TaskFolder, Settings], TaskReport]


def run_code_task(config: TaskT, work: Work[TaskT], settings: Settings, progress: bool = False) -> TaskReport:
    """Train the task's codec if it is not trained yet, do the work in the task's folder, and log the report.

    Raises:
        ConfigError: the method has no code, or sees volumes.
    """
    trained = train_for(config, settings, require_code, progress)
    folder = trained.make_folder(config, settings)
    with recorded(folder, settings) as summary:
        report = work(config, trained, folder, settings)
        report.publish(config, settings)
        summary |= report.metrics
    return report


def require_code(method: Method) -> None:
    """Refuse a method without a code to move in (ConfigError)."""
    if not isinstance(method, Codec):
        raise ConfigError(
            f"{method.config.name} has no code to walk along or to change. Choose a codec, such as vae, vq_vae or "
            "stylegan2."
        )
