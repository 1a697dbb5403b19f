"""Configurations of the tasks that ask how far answers can be trusted: purification, and the check of the domain."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.detection.domain_gate import GateConfig
from pipeline.evaluation.attacks import AttackConfig
from pipeline.nn.condition import Attribute
from pipeline.stages.generate.task_base import HeldOutTask, refuse_closed
from pipeline.types import SetName

Time = Annotated[float, Field(gt=0, le=1)]


class PurifyTask(HeldOutTask):
    """Held-out images that were attacked, purified by a diffusion model, before a classifier and a detector."""

    task: Literal["purify"] = "purify"
    of: tuple[SetName, ...] = Field(("develop",), min_length=1, description="sets whose normal slices are classified")
    count: int = Field(64, ge=2, le=100_000, description="most of these images, chosen by hash")
    times: tuple[Time, ...] = Field(
        (0.05, 0.1, 0.2), min_length=1, description="t*: share of the way to noise that images are taken; each is tried"
    )
    steps: int = Field(4, ge=1, le=1000, description="steps of the way back")
    attack: AttackConfig = Field(AttackConfig(), description="strength and effort of the attacks")
    gradient: Literal["full", "identity"] = Field(
        "full", description="gradient of purification that the adaptive attack follows: its own, or BPDA's identity"
    )
    median: Literal[3, 5, 7, 9] = Field(3, description="edge of the median filter beside it, pixels")
    jpeg_quality: int = Field(50, ge=1, le=100, description="quality of the JPEG compression beside it")
    classes: tuple[Attribute, ...] = Field(
        ("modality", "body_part"),
        description="attributes whose words together a classifier tells apart; relative_position is cut into thirds; "
        "(): no classifier",
    )
    learn: int = Field(600, ge=10, description="most training images of the classifier")
    detector: str | None = Field(
        None,
        min_length=1,
        description="calibrated run of the same route and normaliser, whose own score is attacked; null: none",
    )
    lesions_in: tuple[SetName, ...] = Field(
        ("develop",), min_length=1, description="sets whose labelled slices the detector sees"
    )
    slices: int = Field(64, ge=4, description="most labelled slices, half of them abnormal, chosen by hash")

    @model_validator(mode="after")
    def _attacks_something(self) -> Self:
        refuse_closed(self.lesions_in)
        if not self.classes and self.detector is None:
            raise ValueError(
                "purification needs something to defend: give `classes` for a classifier, or `detector`, a calibrated "
                "run"
            )
        if len(set(self.times)) < len(self.times):
            raise ValueError(f"times {self.times} must be distinct")
        return self


class OutOfDomainTask(HeldOutTask):
    """Strangers before the gate of each domain: other classes, corrupted and attacked images."""

    task: Literal["out-of-domain"] = "out-of-domain"
    of: tuple[SetName, ...] = Field(("develop",), min_length=1, description="sets whose normal slices are shown to it")
    count: int = Field(180, ge=2, le=100_000, description="most of these images, of all domains, chosen by hash")
    learn: int = Field(2000, ge=20, le=100_000, description="most training images, of all domains")
    domains: tuple[Attribute, ...] = Field(
        ("modality", "body_part"),
        description="attributes whose words together are a domain, each in turn; (): the route is the only one",
    )
    gate: GateConfig = Field(GateConfig(), description="the gate: its distance and how many normals it may refuse")
    time: Time = Field(0.1, description="t* of the purification whose change is the second opinion")
    steps: int = Field(4, ge=1, le=1000, description="steps of the way back")
    draws: int = Field(2, ge=1, le=100, description="purifications whose changes are averaged")
    classes: tuple[Attribute, ...] = Field(
        ("modality", "body_part"),
        description="attributes that the attacked classifier tells apart; (): no image is attacked",
    )
    attack: AttackConfig = Field(AttackConfig(), description="strength and effort of the attack on that classifier")
