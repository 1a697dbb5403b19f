"""Configuration of the tasks of words: images from prompts, and one subject learned from a few images."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.data.images.captions import parse_caption
from pipeline.errors import ConfigError
from pipeline.methods.text_to_image import TextToImageConfig
from pipeline.stages.generate.task_base import MOST, TaskConfig, refuse_closed
from pipeline.types import SetName

Guidance = Annotated[float, Field(ge=0, le=100)]


class WordTask(TaskConfig):
    """A task of a text_to_image that was trained with captions, judged against sets that it did not learn."""

    against: tuple[SetName, ...] = Field(
        ("develop",), min_length=1, description="sets whose labelled slices are the real images"
    )
    count: int = Field(200, ge=8, le=MOST, description="images for KID, with the captions of the real ones")
    steps: int = Field(12, ge=1, le=1000, description="steps of the sampler")

    @model_validator(mode="after")
    def _is_held_out(self) -> Self:
        refuse_closed(self.against)
        if self.run is None:
            return self
        if not isinstance(self.run.method, TextToImageConfig) or self.run.captions is None:
            raise ValueError(
                f"run {self.run.name} has the method {self.run.method.name}"
                f"{'' if self.run.captions else ' and no captions'}; prompts need the method text_to_image, and "
                "`captions: {}` to learn from labelled scans"
            )
        if both := sorted(set(self.against) & set(self.run.captions.labelled_in)):
            raise ValueError(f"the run learns from {', '.join(both)}, so images cannot be judged against that. Change "
                             "`against`, or run.captions.labelled_in")  # fmt: skip
        return self


class TextToImageTask(WordTask):
    """New images from prompts: does an image show its words, also where none like it was seen?"""

    task: Literal["text-to-image"] = "text-to-image"
    each: int = Field(20, ge=1, le=1000, description="images of each combination of third and finding")
    prompts: tuple[str, ...] = Field((), description="further prompts, one picture each on the sheet; not judged")
    negative: str = Field("", description="negative prompt of all images")
    guidance: tuple[Guidance, ...] = Field(
        (1.0, 2.0, 4.0), min_length=1, description="guidances, each judged; the last is that of the sheet"
    )
    baseline: bool = Field(True, description="train the same model on classes instead of text, and judge it beside")

    @model_validator(mode="after")
    def _prompts_fit(self) -> Self:
        try:
            for prompt in (*self.prompts, *((self.negative,) if self.negative else ())):
                parse_caption(prompt)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


class PersonaliseTask(WordTask):
    """A rare word for one scanner or patient, learned from a few held-out images, as DreamBooth does."""

    task: Literal["personalise"] = "personalise"
    subject: Literal["scanner", "patient"] = Field("scanner", description="what the word is for")
    which: str | None = Field(
        None, min_length=1, description="name of the scanner, or pseudonym of the patient; null: that with most images"
    )
    word: Literal["vrx", "qzk", "wjf", "zqp"] = Field("vrx", description="the rare word")
    images: int = Field(4, ge=1, le=20, description="held-out normal images of the subject that are learned")
    prior: int = Field(32, ge=1, le=10_000, description="images that the model draws before, to be kept")
    tuning: int = Field(
        400, ge=1, description="training images of the subject, counting repetitions; as many of the prior"
    )
    lr: float = Field(2e-4, gt=0, description="learning rate")
    each: int = Field(24, ge=1, le=1000, description="images drawn with the word")
    guidance: Guidance = Field(2.0, description="guidance of all images")
