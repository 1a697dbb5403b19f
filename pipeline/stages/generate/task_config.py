"""Configuration of a generative task (`configs/tasks/*.yaml`): a model, what is asked of it, and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast, get_args

from pydantic import Field, NonNegativeInt, model_validator

from pipeline.config import Config, apply_override, parse_config, read_values
from pipeline.diffusion.noise import NoiseKind
from pipeline.errors import ConfigError
from pipeline.methods import AnyMethodConfig, parse_method
from pipeline.nn.condition import Attribute
from pipeline.retrieval.config import IndexConfig
from pipeline.stages.generate.codes.editing_task import EditTask
from pipeline.stages.generate.restoration.restoration_tasks import (
    InpaintTask,
    OutpaintTask,
    RestoreTask,
    SuperResolveTask,
)
from pipeline.stages.generate.robustness.robustness_tasks import OutOfDomainTask, PurifyTask
from pipeline.stages.generate.signals.signal_tasks import ClassifyTask, TokeniseTask
from pipeline.stages.generate.task_base import MOST, HeldOutTask, PairedTask, TaskConfig, refuse_closed
from pipeline.stages.generate.training_data.training_data_task import SynthesiseTrainingTask
from pipeline.stages.generate.translation.control_task import ControlTask
from pipeline.stages.generate.translation.translation_task import TranslateTask
from pipeline.stages.generate.words.word_tasks import PersonaliseTask, TextToImageTask
from pipeline.types import SetName

Value = bool | int | float | str
FEWEST = 8  # images that can be judged (`real_images.SMALLEST`, which takes a second to import)
RUN_FIELDS = {"data", "method"}


def _eigen_images() -> Any:
    return parse_method({"name": "pca"})


class JudgingConfig(Config):
    """How generated images are judged: against which real ones, and beside which baseline."""

    against: tuple[SetName, ...] = Field(
        ("validate", "develop"), min_length=1, description="sets whose normal slices are the real images"
    )
    classes: tuple[Attribute, ...] = Field(
        (),
        description="attributes whose words together are an image's class: diversity is measured within classes, and "
        "conditions are checked by a classifier",
    )
    baseline: AnyMethodConfig | None = Field(
        default_factory=_eigen_images,
        description="method that is trained on the same images as the plainest baseline; null: none",
    )

    @model_validator(mode="after")
    def _is_held_out(self) -> Self:
        refuse_closed(self.against)
        return self


class SampleTask(TaskConfig):
    """New images from nothing: draw from a model, judge against held-out images, beside a baseline."""

    task: Literal["sample"] = "sample"
    count: int = Field(256, ge=1, le=MOST, description="number of images")
    batch: int = Field(32, ge=1, le=4096, description="images drawn at once; the images do not depend on it")
    about: Literal["held-out", "none"] | Annotated[dict[Attribute, str | float], Field(min_length=1)] = Field(
        "held-out",
        description="condition of each image: those of the held-out ones, none, or the same attributes for all; a "
        "method without conditions has none",
    )
    options: dict[str, Value] = Field({}, description="keywords of the method's `sample`, such as steps or temperature")
    sweep: dict[str, tuple[Value, ...]] = Field(
        {}, max_length=1, description="one of those keywords with several values, each drawn and judged in turn"
    )
    judge: JudgingConfig | None = Field(
        default_factory=JudgingConfig, description="how the images are judged; null: not at all"
    )

    @property
    def swept(self) -> tuple[dict[str, Value], ...]:
        """The keywords of each drawing, none twice: the options as they are first, then each value of the sweep."""
        varied = [{**self.options, name: value} for name, values in self.sweep.items() for value in values]
        every = [self.options, *varied]
        return tuple(one for number, one in enumerate(every) if one not in every[:number])

    @property
    def fixed(self) -> dict[str, Any] | None:
        """The condition of all images, where it is the same; else None."""
        return {str(name): word for name, word in self.about.items()} if isinstance(self.about, dict) else None

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        refuse_empty_sweep(self.sweep)
        if self.judge is not None and self.count < FEWEST:
            raise ValueError(
                f"count is {self.count}, but judging needs at least {FEWEST} images, and 500 give useful numbers. "
                "Draw more, or set judge=null"
            )
        return self


class WalkTask(TaskConfig):
    """Images on the way from one held-out image to another, along the line between their codes."""

    task: Literal["walk"] = "walk"
    pairs: int = Field(6, ge=1, le=100, description="pairs of images, each of two patients")
    steps: int = Field(8, ge=2, le=100, description="images of a walk, its ends included")
    between: tuple[SetName, ...] = Field(
        ("validate", "develop"), min_length=1, description="sets whose normal slices are the ends"
    )

    @property
    def begins_with(self) -> tuple[SetName, ...]:
        """Sets whose normal slices it needs."""
        return self.between


class TraverseTask(HeldOutTask):
    """Images of one code of which a single dimension is changed: what it stands for, seen and measured."""

    task: Literal["traverse"] = "traverse"
    dimensions: tuple[NonNegativeInt, ...] = Field(
        (), description="dimensions to show; (): those that know a factor, then those that change the image most"
    )
    rows: int = Field(8, ge=1, le=100, description="dimensions to show if none are named")
    steps: int = Field(10, ge=2, le=100, description="values of each")
    reach: float = Field(2.5, gt=0, description="standard deviations over the images to either side of the mean")
    factors: tuple[Attribute, ...] = Field(
        (), description="attributes that vary among the images, of which the mutual information gap (MIG) is measured"
    )


class DenoiseTask(PairedTask):
    """Held-out images with noise of stated strength, from which a model removes it."""

    task: Literal["denoise"] = "denoise"
    noise: NoiseKind = Field("gaussian", description="coarse, simplex or gaussian")
    strengths: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        (0.1, 0.2, 0.4),
        min_length=1,
        description="standard deviations of the noise within the body, in units of the image [-1, 1]",
    )


class RetrieveTask(HeldOutTask):
    """The nearest training images of held-out ones, by codes of a model, and how many of them are of the same kind."""

    task: Literal["retrieve"] = "retrieve"
    of: tuple[SetName, ...] = Field(("develop",), min_length=1, description="sets whose normal slices are the queries")
    searched: tuple[Literal["train", "validate"], ...] = Field(
        ("train", "validate"), min_length=1, description="sets whose normal slices are searched"
    )
    neighbours: int = Field(10, ge=1, le=100, description="neighbours of each query, each of another patient")
    classes: tuple[Attribute, ...] = Field(
        ("modality", "body_part"), description="attributes that a relevant neighbour shares with the query"
    )
    level: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="largest difference in relative position along the series of a relevant neighbour; null: any",
    )
    index: IndexConfig = Field(IndexConfig(), description="how the index of the model's codes is searched")

    @property
    def makes_images(self) -> bool:
        """Whether the pictures show synthetic images; these are real."""
        return False


def refuse_empty_sweep(sweep: Mapping[str, Sequence[Value]]) -> None:
    """Refuse a sweep of an option without values (ValueError)."""
    if empty := [name for name, values in sweep.items() if not values]:
        raise ValueError(f"sweep.{empty[0]} must not be empty; list its values, or leave out sweep")


AnyTask = (
    SampleTask
    | WalkTask
    | TraverseTask
    | DenoiseTask
    | SuperResolveTask
    | InpaintTask
    | OutpaintTask
    | RestoreTask
    | TranslateTask
    | ControlTask
    | RetrieveTask
    | EditTask
    | PurifyTask
    | OutOfDomainTask
    | SynthesiseTrainingTask
    | TokeniseTask
    | ClassifyTask
    | TextToImageTask
    | PersonaliseTask
)
TaskT = TypeVar("TaskT", bound=TaskConfig)
TASKS: dict[str, type[TaskConfig]] = {cast(Any, one).model_fields["task"].default: one for one in get_args(AnyTask)}


def load_task(path: str | Path, overrides: Sequence[str] = ()) -> AnyTask:
    """Read a task of the kind that its file names; one that names none is a `sample`.

    Raises:
        ConfigError: see `pipeline.config.load_config`, or the kind is unknown.
    """
    kind = str(read_values(path, overrides).get("task", "sample"))
    if kind not in TASKS:
        raise ConfigError(f"{path} has the task {kind!r}. Choose among {', '.join(TASKS)}.")
    return cast(AnyTask, load_task_as(TASKS[kind], path, overrides))


def load_task_as(kind: type[TaskT], path: str | Path, overrides: Sequence[str] = ()) -> TaskT:
    """Read a task of one kind; a file of the task `sample` names the model of any other, too.

    Raises:
        ConfigError: see `pipeline.config.load_config`.
    """
    values = read_values(path)
    _refuse_another_kind(kind, values, path)
    if kind is not SampleTask and values.get("task", "sample") == "sample":
        values = {name: value for name, value in values.items() if name in TaskConfig.model_fields}
    for override in overrides:
        apply_override(values, override)
    return parse_config(values, kind, path)


def kind_of(values: Mapping[str, Any]) -> str:
    """Return the kind of task that a file's values say, or that their fields show where they name none."""
    return str(values.get("task", "compare" if "samplers" in values else "sample"))


def _refuse_another_kind(kind: type[TaskConfig], values: dict[str, Any], path: str | Path) -> None:
    """Refuse a file that belongs to another command, or that is not a task's (ConfigError)."""
    own, named = cast(Any, kind).model_fields["task"].default, kind_of(values)
    if named in (own, "sample") and ("task" in values or not values.keys() >= RUN_FIELDS):
        return
    if named == "compare" or (named in TASKS and "task" in values):
        raise ConfigError(f"{path} is of the kind {named}, not {own}. Run it with nightread generate {named} {path}")
    if "task" not in values:
        raise ConfigError(
            f"{path} is the configuration of a run: it says how a model is trained, and not what it draws. Name it in "
            "the field `run` of a task, as configs/tasks/phantom-mr.yaml does."
        )
