"""Configuration of the task `control`: images that follow a picture, edges or the mask of a lesion."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.methods.controlnet import ControlnetConfig
from pipeline.stages.generate.task_base import HeldOutTask
from pipeline.types import SetName


class ControlTask(HeldOutTask):
    """Images drawn from the edges, or from the masks of lesions, of held-out images."""

    task: Literal["control"] = "control"
    of: tuple[SetName, ...] = Field(
        ("develop",),
        min_length=1,
        description="sets whose edges or masks are requested; not those learned from",
    )
    count: int = Field(120, ge=2, le=100_000, description="most of these images, chosen by hash")
    steps: int = Field(25, ge=1, le=1000, description="steps of the sampler")
    segmenter: int = Field(500, ge=1, description="lesions: steps of each segmenter's training, on batches of 16")

    @model_validator(mode="after")
    def _is_controlled(self) -> Self:
        if self.run is None:
            return self
        if not isinstance(self.run.method, ControlnetConfig):
            raise ValueError(
                f"{self.run.method.name} cannot follow a picture. Choose the method controlnet, with control edges or "
                "lesion"
            )
        if both := sorted(set(self.of) & set(self.run.labelled_in)):
            raise ValueError(
                f"the run learns from {', '.join(both)}, so images cannot be judged against that. Change `of`, or "
                "run.masks.labelled_in"
            )
        return self
