"""Configuration of one run, from data to evaluation (`configs/runs/*.yaml`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Config, merge
from pipeline.data.images.data_config import DataConfig
from pipeline.detection.config import DetectionConfig
from pipeline.detection.ensemble_config import EnsembleConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.methods import AnyMethodConfig, sees_the_other_side
from pipeline.methods.base import MethodConfig
from pipeline.training.config import TrainingConfig


class RunConfig(Config):
    """Configuration of a model, its detector and their evaluation."""

    name: str = Field(min_length=1, description="readable name of the run, as in MLflow")
    data: DataConfig = Field(description="route, normalisation, sets")
    method: Annotated[AnyMethodConfig | EnsembleConfig, Field(discriminator="name")] = Field(
        description="the model of normality, or an ensemble of trained runs"
    )
    training: TrainingConfig = Field(TrainingConfig(), description="budget, batch, precision, early stopping")
    detection: DetectionConfig | None = Field(
        None, description="residual, aggregation, flagging; null trains a model without a detector"
    )
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="intervals and operating points")
    unit: Literal["study", "slice"] = Field(
        "study",
        description="calibration and evaluation unit; `slice` if there are no normal studies, then without guarantee",
    )

    @property
    def whole(self) -> bool:
        """Whether the detector reads whole series: as volumes, or because a map depends on adjacent slices."""
        return self.data.volumes is not None or (self.detection is not None and self.detection.residual.whole)

    def require_detection(self) -> DetectionConfig:
        """Return the run's detection configuration.

        Raises:
            ConfigError: the run has none.
        """
        if self.detection is None:
            raise ConfigError(
                f"The run {self.name} has a model but no detector, so it cannot calibrate or score. Add "
                "`detection: {}` to its configuration, for all defaults, and run nightread train CONFIG"
            )
        return self.detection

    def build_member_run(self, sections: dict[str, Any]) -> RunConfig:
        """Return the run of an ensemble's member: its own method, training and detection, all else the ensemble's.

        Raises:
            ValidationError: a section has an unknown or out-of-range field.
        """
        own = self.model_dump(mode="json", exclude={"method"}, exclude_unset=True)
        run = RunConfig.model_validate(merge(own, sections))
        return run.model_copy(update={"name": f"{self.name}-{run.method.name}"})

    @model_validator(mode="after")
    def _members_are_runs(self) -> Self:
        if isinstance(self.method, EnsembleConfig):
            for member in self.method.members:
                if member.train is not None and isinstance(self.build_member_run(member.train).method, EnsembleConfig):
                    raise ValueError("a member cannot be an ensemble itself. List its members instead")
        return self

    @model_validator(mode="after")
    def _components_of_this_fold(self) -> Self:
        trained = [name for name, one in self.method.components().items() if one.trained]
        if self.data.fold is not None and trained:
            raise ValueError(
                f"a trained {trained[0]} may have learned from the patients that data.fold holds out. Leave "
                f"out method.{trained[0]}.run and sha256, so that it is trained here"
            )
        return self

    def refuse_mirrored_cubes(self, method: MethodConfig) -> None:
        """Check that a method that looks at the mirrored image gets whole images.

        Raises:
            ConfigError: it, or a component of it, would get cubes that are narrower than the image.
        """
        volumes = self.data.volumes
        if volumes is None or volumes.tile == self.data.normaliser.image_size:
            return
        if sees_the_other_side(method):
            raise ConfigError(
                "The mirrored cube is not the patient's other side. Set method.mirrored, or that of the component, to "
                "false, or make the tile of data.volumes as wide as the image."
            )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not isinstance(self.method, EnsembleConfig):
            try:
                self.refuse_mirrored_cubes(self.method)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return self
