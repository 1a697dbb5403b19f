"""Configuration of the task `translate`: images of one scanner or modality, made into those of another."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from pipeline.stages.generate.task_base import BesideTask


class TranslateTask(BesideTask):
    """Held-out images of one domain, translated to another in which the same slices are known."""

    task: Literal["translate"] = "translate"

    @model_validator(mode="after")
    def _has_two_domains(self) -> Self:
        if self.run is not None and self.run.towards is None:
            raise ValueError(
                "a translation needs a second domain: set run.towards, with its route and normaliser, or name a "
                "trained run that has it"
            )
        return self
