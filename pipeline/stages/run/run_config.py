"""Configuration of one run, from data to evaluation (`configs/runs/*.yaml`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Config, merge
from pipeline.corruption.findings import HarvestConfig
from pipeline.data.images.data_config import DataConfig
from pipeline.detection.config import DetectionConfig
from pipeline.detection.domain_gate import GateConfig
from pipeline.detection.ensemble_config import EnsembleConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.config import EvaluationConfig
from pipeline.methods import AnyMethodConfig, sees_the_other_side
from pipeline.methods.base import MethodConfig
from pipeline.methods.controlnet import ControlnetConfig
from pipeline.methods.supervision import find_supervision
from pipeline.methods.text_to_image import TextToImageConfig
from pipeline.nested import without
from pipeline.stages.run.captioned_slices import CaptionsConfig
from pipeline.stages.run.masked_slices import MasksConfig
from pipeline.stages.run.towards import TowardsConfig
from pipeline.training.config import TrainingConfig
from pipeline.types import SetName

TEACHER = {"name", "method", "training", "detection"}  # parts of a run that a teacher may have of its own


class UnlabelledConfig(Config):
    """Learning from unlabelled scans: an earlier detector finds what is unusual in them, and the method pastes it."""

    teacher: dict[str, Any] = Field(
        {}, description="sections of the run that finds it, where they differ; its method is this run's without pasting"
    )
    harvest: HarvestConfig = Field(HarvestConfig(), description="what counts as a finding")

    @model_validator(mode="after")
    def _teacher_has_the_same_data(self) -> Self:
        if odd := sorted(set(self.teacher) - TEACHER):
            raise ValueError(
                f"teacher has the sections {', '.join(odd)}, but its data and sets are the run's own. Remove them; "
                f"it may have {', '.join(sorted(TEACHER))}"
            )
        return self


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
    unlabelled: UnlabelledConfig | None = Field(
        None,
        description="learn from unlabelled scans of patients in train too, for methods with `pasting`; null: do not",
    )
    towards: TowardsConfig | None = Field(
        None,
        description="second domain that the model translates images to, for methods that restore or translate; null: "
        "none",
    )
    captions: CaptionsConfig | None = Field(
        None, description="text_to_image: learn from labelled scans and their captions too; null: from normals alone"
    )
    masks: MasksConfig | None = Field(
        None, description="controlnet of lesions: learn from labelled scans and their masks too; null: edges need none"
    )
    domain_gate: GateConfig | None = Field(
        None, description="hold series unlike the training normals instead of scoring them; null: score everything"
    )
    unit: Literal["study", "slice"] = Field(
        "study",
        description="calibration and evaluation unit; `slice` if there are no normal studies, then without guarantee",
    )

    @property
    def whole(self) -> bool:
        """Whether the detector reads whole series: as volumes, or because a map depends on adjacent slices."""
        return self.data.volumes is not None or (self.detection is not None and self.detection.residual.whole)

    @property
    def labelled_in(self) -> tuple[SetName, ...]:
        """The sets whose labelled slices the model learns from as well; () for a model of normality."""
        return next((one.labelled_in for one in (self.captions, self.masks) if one is not None), ())

    @property
    def learns_from_gate(self) -> bool:
        """Whether the model learns from labelled patients in gate, who decide about promotions."""
        return "gate" in self.labelled_in

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
        own = self.model_dump(mode="json", exclude={"method", "domain_gate"}, exclude_unset=True)
        run = RunConfig.model_validate(merge(own, sections))
        return run.model_copy(update={"name": f"{self.name}-{run.method.name}"})

    def build_teacher_run(self) -> RunConfig:
        """Return the run whose detector finds what this one learns to paste: it learns from normals alone.

        Raises:
            ConfigError: it has no detector.
            ValidationError: its method would paste findings itself, or a section of `unlabelled.teacher` has an unknown
                or out-of-range field.
        """
        sections = {} if self.unlabelled is None else self.unlabelled.teacher
        own = self.model_dump(mode="json", exclude={"unlabelled", "domain_gate"}, exclude_unset=True)
        if "method" in sections:
            del own["method"]
        elif isinstance(own["method"], dict):
            own["method"] = without(own["method"], "pasting")
        teacher = RunConfig.model_validate(merge({**own, "name": f"{self.name}-teacher"}, sections))
        teacher.require_detection()
        return teacher

    def build_other_side(self) -> RunConfig:
        """Return the run with the data of the domain that it translates to, where its answers belong.

        Raises:
            ConfigError: it translates to none.
        """
        if self.towards is None:
            raise ConfigError(
                f"The run {self.name} learned no second domain, so its model does not translate. Name a run with "
                "`towards`."
            )
        data = self.data.model_copy(update={"route": self.towards.route, "normaliser": self.towards.normaliser})
        return self.model_copy(update={"data": data, "towards": None})

    @model_validator(mode="after")
    def _translates_to_another_domain(self) -> Self:
        if self.towards is None:
            return self
        if self.towards.route == self.data.route:
            raise ValueError(
                f"the route {self.data.route} cannot be translated into itself. Name another one in towards.route"
            )
        sizes = self.data.normaliser.image_size, self.towards.normaliser.image_size
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"images of {sizes[0]} pixels cannot be translated into images of {sizes[1]}. Set the same image_size "
                "in data.normaliser and towards.normaliser"
            )
        if self.detection is not None or self.unlabelled is not None or self.data.volumes is not None:
            raise ValueError(
                "a run with `towards` trains a translator of slices, without a detector. Leave out detection, "
                "unlabelled and data.volumes"
            )
        return self

    @model_validator(mode="after")
    def _findings_are_used(self) -> Self:
        if self.data.volumes is not None and self.unlabelled is not None:
            raise ValueError("findings are pasted on slices, not on volumes. Remove `unlabelled`, or data.volumes")
        if isinstance(self.method, EnsembleConfig):
            if self.unlabelled is not None:
                raise ValueError("an ensemble does not learn itself. Give `unlabelled` to its members, under `train`")
            return self
        pastes = find_supervision(self.method) == "unlabelled"
        if pastes == (self.unlabelled is not None):
            return self
        if self.unlabelled is None:
            raise ValueError(
                "the method pastes findings in unlabelled scans, so the run needs `unlabelled`. Set it to {} for the "
                "defaults, or remove the method's `pasting`"
            )
        raise ValueError(
            "the method does not paste findings from unlabelled scans. Set its `pasting` to {} (or its "
            "painting.pasting), or remove `unlabelled`"
        )

    @model_validator(mode="after")
    def _captions_are_read(self) -> Self:
        if self.captions is not None and not isinstance(self.method, TextToImageConfig):
            raise ValueError(
                f"{self.method.name} does not read captions. Remove `captions`, or choose the method text_to_image"
            )
        return self

    @model_validator(mode="after")
    def _masks_are_followed(self) -> Self:
        follows = isinstance(self.method, ControlnetConfig) and self.method.control == "lesion"
        if follows != (self.masks is not None):
            raise ValueError(
                "a controlnet with `control: lesion` learns from the masks of labelled slices, and nothing else does. "
                "Set `masks: {}` for the defaults together with method.control: lesion, or neither of them"
            )
        if self.masks is not None and self.data.volumes is not None:
            raise ValueError("masks are followed on slices, not on volumes. Remove data.volumes")
        return self

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
    def _groups_are_of_patients(self) -> Self:
        grouped = self.detection is not None and self.detection.groups.by
        if grouped and (self.unit == "slice" or self.data.splits.mixed_patients):
            raise ValueError(
                "detection.groups.by needs independent patients, but the calibration unit here is a slice, or patients "
                "are mixed, which has no guarantee. Remove it, or calibrate with `unit: study`"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not isinstance(self.method, EnsembleConfig):
            try:
                self.refuse_mirrored_cubes(self.method)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return self
