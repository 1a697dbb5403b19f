"""Configuration of the task `edit`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.stages.generate.task_base import MOST, HeldOutTask
from pipeline.types import SetName

EditedAttribute = Literal[
    "lesion", "relative_position", "age_band", "sex", "scanner", "modality", "body_part", "view"
]  # fmt: skip


class EditTask(HeldOutTask):
    """Held-out images of which a single attribute is changed by moving their code along a direction."""

    task: Literal["edit"] = "edit"
    of: tuple[SetName, ...] = Field(
        ("develop",), min_length=1, description="sets whose labelled slices are edited and teach the directions"
    )
    count: int = Field(240, ge=20, le=MOST, description="most of these images per attribute, chosen by hash")
    attributes: tuple[EditedAttribute, ...] = Field(
        ("relative_position",), min_length=1, description="attributes to edit, each with a direction of its own"
    )
    strengths: tuple[Annotated[float, Field(ge=-10, le=10)], ...] = Field(
        (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0),
        min_length=2,
        max_length=9,
        description="strengths of the pictures; 1 leads from the one side's mean to the other's",
    )
    pictured: int = Field(4, ge=1, le=20, description="images of each attribute that the sheet shows")
    components: int = Field(64, ge=2, le=1024, description="eigen-images of the baseline")
    batch: int = Field(32, ge=1, le=4096, description="images edited at once; they do not depend on it")

    @model_validator(mode="after")
    def _is_without_repetition(self) -> Self:
        if len(set(self.attributes)) < len(self.attributes):
            raise ValueError(f"attributes are named twice: {', '.join(self.attributes)}. Name each once")
        return self
