"""The configuration of one run, from data to evaluation: what `configs/runs/*.yaml` hold."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Config
from pipeline.data.images.data_config import DataConfig
from pipeline.detection.config import DetectionConfig
from pipeline.detection.ensemble_config import EnsembleConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.methods import AnyMethodConfig
from pipeline.training.config import TrainingConfig


class RunConfig(Config):
    """Everything that decides a model, the detector around it, and how that is judged."""

    name: str = Field(min_length=1, description="readable name of the run; MLflow shows it")
    data: DataConfig = Field(description="route, normalisation, sets")
    method: Annotated[AnyMethodConfig | EnsembleConfig, Field(discriminator="name")] = Field(
        description="the model of normality, or the trained runs that are one together"
    )
    training: TrainingConfig = Field(TrainingConfig(), description="budget, batch, precision, early stopping")
    detection: DetectionConfig | None = Field(
        None, description="residual, aggregation, flagging; null trains a model that detects nothing"
    )
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="intervals and operating points")
    unit: Literal["study", "slice"] = Field(
        "study",
        description="calibration and evaluation unit; `slice` where normal studies do not exist: no guarantee then",
    )

    @property
    def whole(self) -> bool:
        """Whether the detector reads series whole: as volumes, or since maps are averaged over adjacent slices."""
        adjacent = self.detection is not None and self.detection.residual.adjacent > 0
        return self.data.volumes is not None or adjacent

    def require_detection(self) -> DetectionConfig:
        """Return how the run detects.

        Raises:
            ConfigError: it does not.
        """
        if self.detection is None:
            raise ConfigError(
                f"The run {self.name} has a model and no detector, and so nothing to calibrate or score with. Add "
                "`detection: {}` to its configuration, which takes every default, and run: nightread train CONFIG"
            )
        return self.detection

    @model_validator(mode="after")
    def _codec_of_this_fold(self) -> Self:
        codec = getattr(self.method, "codec", None)
        if self.data.fold is not None and getattr(codec, "sha256", None) is not None:
            raise ValueError(
                "a codec that is trained already may have learned from the patients that data.fold holds out: leave "
                "method.codec.folder and sha256 out, so that it is trained here"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        volumes = self.data.volumes
        if volumes is None or volumes.tile == self.data.normaliser.image_size:
            return self
        if getattr(self.method, "mirrored", False):
            raise ValueError(
                "the mirror image of a cube is not the patient's: leave method.mirrored false, or let the "
                "tile of data.volumes be as wide as the image"
            )
        return self
