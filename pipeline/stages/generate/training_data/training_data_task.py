"""Configuration of the task `synthesise-training`: does a detector learn from synthetic images beside real ones?"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import merge
from pipeline.detection.ensemble_config import EnsembleConfig
from pipeline.errors import ConfigError
from pipeline.methods import parse_method
from pipeline.stages.generate.task_base import TaskConfig
from pipeline.stages.run.run_config import RunConfig

Value = bool | int | float | str


class SynthesiseTrainingTask(TaskConfig):
    """The same detector, taught with real images alone, with synthetic normals, with synthetic lesions, with both."""

    task: Literal["synthesise-training"] = "synthesise-training"
    detector: RunConfig = Field(description="the run of the plain detector: real images, plain augmentation")
    lesions: dict[str, Any] = Field(
        description="changes of the detector's method that paint synthetic lesions, whose masks are known, on what it "
        "learns from"
    )
    synthetic_share: float = Field(
        gt=0,
        lt=1,
        description="share of synthetic images among the training images of two arms; no default, since synthetic "
        "images enter a training set only where a configuration says so",
    )
    drawn: int = Field(400, ge=1, le=100_000, description="synthetic normals that the sampler draws per training")
    options: dict[str, Value] = Field({}, description="keywords of the method's `sample`, such as steps or temperature")
    patients: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.1, 0.25, 1.0),
        min_length=1,
        description="shares of the training patients, chosen by hash; each is a point of the curve",
    )
    folds: int = Field(2, ge=2, le=50, description="parts of the patients, each of which is held out once")

    @property
    def lesion_run(self) -> RunConfig:
        """The detector's run with painted lesions.

        Raises:
            ConfigError: the method has no such field, or a value is out of range.
        """
        values = merge(self.detector.method.model_dump(mode="json"), self.lesions)
        return self.detector.model_copy(update={"method": parse_method(values)})

    @model_validator(mode="after")
    def _compares_like_with_like(self) -> Self:
        if self.run is None:
            raise ValueError(
                "a sampler is trained on the patients of each fold, so that it never saw the others: give "
                "`run`, not `trained`"
            )
        if isinstance(self.detector.method, EnsembleConfig) or self.detector.unlabelled is not None:
            raise ValueError(
                "the detector must be a single method, trained on normals. Leave out members and `unlabelled`"
            )
        if self.detector.detection is None or self.detector.whole:
            raise ValueError("the detector needs `detection`, without adjacent, hysteresis and volumes")
        for name in ("route", "normaliser", "splits"):
            if getattr(self.run.data, name) != getattr(self.detector.data, name):
                raise ValueError(f"sampler and detector have another data.{name}; synthetic images must be of one kind")
        if self.run.data.fold is not None or self.detector.data.fold is not None:
            raise ValueError("folds are this task's own. Leave out data.fold")
        if len(set(self.patients)) < len(self.patients):
            raise ValueError(f"patients {self.patients} must be distinct")
        try:
            changed = self.lesion_run.method
        except ConfigError as error:
            raise ValueError(f"lesions: {error}") from None
        if changed == self.detector.method:
            raise ValueError(
                "lesions changes nothing, so both arms would be the same. Set the fields that paint lesions"
            )
        return self
