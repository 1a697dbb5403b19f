"""Configuration of the tasks on signals: recordings written in discrete units, and classified by them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.stages.generate.signals.masked_codes import MaskedCodesConfig
from pipeline.stages.generate.task_base import MOST, HeldOutTask, TaskConfig, refuse_closed
from pipeline.types import SetName


class TokeniseTask(HeldOutTask):
    """Held-out recordings written in the discrete units of a codec, judged against what they are known to hold."""

    task: Literal["tokenise-signal"] = "tokenise-signal"
    truth: Path = Field(description="CSV of what each stretch is: SOPInstanceUID, first, last (seconds), unit")
    triples: int = Field(2000, ge=10, le=MOST, description="ABX triples, evenly over the pairs of units")


class ClassifyTask(TaskConfig):
    """What recordings show, named by a transformer that was pre-trained on their codes, beside what was not."""

    task: Literal["classify-signal"] = "classify-signal"
    truth: Path = Field(description="CSV of what each recording shows: SOPInstanceUID, first, last (seconds), unit")
    of: tuple[SetName, ...] = Field(("develop",), min_length=1, description="sets whose recordings teach and test")
    pretrained_on: tuple[SetName, ...] = Field(
        ("train", "validate"), description="sets whose recordings pre-training reads too, besides those that teach"
    )
    tested: float = Field(0.4, gt=0, lt=1, description="share of the patients that test, chosen by hash")
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.1, 1.0), min_length=1, description="shares of the labels, each tried"
    )
    transformer: MaskedCodesConfig = Field(MaskedCodesConfig(), description="its size; codes and classes set the rest")
    pretraining_images: int = Field(12_000, ge=1, description="sequences in pre-training, counting repetitions")
    tuning_images: int = Field(4_000, ge=1, description="sequences in fine-tuning, and from scratch")
    batch: int = Field(32, ge=1, description="sequences per step")

    @model_validator(mode="after")
    def _is_held_out(self) -> Self:
        refuse_closed(self.of)
        return self
