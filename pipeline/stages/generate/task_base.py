"""Fields that the configurations of generative tasks share: a model, held-out images, a detector that judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from pipeline.config import Config
from pipeline.detection.ensemble_config import EnsembleConfig
from pipeline.methods import AnyMethodConfig
from pipeline.stages.run.run_config import RunConfig
from pipeline.types import SetName

MOST = 100_000


class TrainedRun(Config):
    """A trained run, whose model a task uses as it is."""

    run: str = Field(min_length=1, description="id of the run, or an unambiguous beginning of it")
    sha256: str | None = Field(None, description="SHA-256 that its model must have; null takes any")


def refuse_closed(sets: Sequence[SetName]) -> None:
    """Refuse sets that no task may judge by (ValueError)."""
    closed = [name for name in sets if name in ("train", "calibrate", "test")]
    if closed:
        raise ValueError(
            f"generated images cannot be judged against {', '.join(closed)}: a model learned from train, calibrate "
            "is for thresholds, and test is for the final table. Choose among validate, develop and gate"
        )


class TaskConfig(Config):
    """What every generative task has: a name, and one model."""

    name: str = Field(min_length=1, pattern=r"^[\w.-]+$", description="readable name, as in MLflow and in tables")
    run: RunConfig | None = Field(None, description="the run that trains the model; it needs no `detection`")
    trained: TrainedRun | None = Field(None, description="a trained run instead, whose model is used as it is")
    seed: int = Field(0, ge=0, description="seed of all that is drawn")

    @property
    def makes_images(self) -> bool:
        """Whether the pictures show synthetic images."""
        return True

    @property
    def begins_with(self) -> tuple[SetName, ...]:
        """Sets whose normal slices it needs; () for none."""
        return ()

    @model_validator(mode="after")
    def _names_one_model(self) -> Self:
        if (self.run is None) == (self.trained is None):
            raise ValueError(
                "a task needs one model: give `run`, the configuration that trains it, or `trained`, a run"
            )
        if self.run is not None and isinstance(self.run.method, EnsembleConfig):
            raise ValueError("an ensemble scores and does not generate. Name one of its members' methods in run.method")
        return self


class HeldOutTask(TaskConfig):
    """A task that begins with held-out images."""

    of: tuple[SetName, ...] = Field(
        ("validate", "develop"), min_length=1, description="sets whose normal slices are the images"
    )
    count: int = Field(256, ge=2, le=MOST, description="most of these images, chosen by hash")

    @property
    def begins_with(self) -> tuple[SetName, ...]:
        """Sets whose normal slices it needs."""
        return self.of

    @model_validator(mode="after")
    def _is_held_out(self) -> Self:
        refuse_closed(self.of)
        return self


class PairedJudging(Config):
    """How images made from worse ones are judged beside their originals: always by distance, and by a detector."""

    detector: str | None = Field(
        None,
        min_length=1,
        description="calibrated run of the same route and normaliser, which says whether lesions survive and whether "
        "normal images are flagged; null: neither",
    )
    lesions_in: tuple[SetName, ...] = Field(
        ("develop",), min_length=1, description="sets whose labelled slices the detector sees"
    )
    patients: int | None = Field(60, ge=2, description="most patients of these sets, chosen by hash; null: all")

    @model_validator(mode="after")
    def _is_held_out(self) -> Self:
        refuse_closed(self.lesions_in)
        return self


class PairedTask(HeldOutTask):
    """A task that makes images from worse ones, whose originals are known."""

    judge: PairedJudging = Field(PairedJudging(), description="the detector's part in the judgement")


class BesideConfig(Config):
    """Another method that answers the same task, in the same table."""

    method: AnyMethodConfig = Field(description="the method; without `degradations` it learns those of the task")
    images: int | None = Field(None, ge=1, description="training images; null: as many as the task's own model")


class BesideTask(PairedTask):
    """A paired task that several methods answer."""

    beside: tuple[BesideConfig, ...] = Field(
        (), description="other methods, trained on the same images, whose answers are rows of the same table"
    )

    @model_validator(mode="after")
    def _answers_once(self) -> Self:
        own = [] if self.run is None else [self.run.method.name]
        names = [*own, *(one.method.name for one in self.beside)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} occurs more than once among the task's methods; name each once")
        return self
