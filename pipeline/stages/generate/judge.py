"""Judge a task's drawings: one row each for the sampler, every value of its sweep, and the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.evaluation.image_quality import ImageJudge, RealImages
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.sample_results import ImageQuality
from pipeline.stages.generate.sampling.sample import Drawing, OpenTask
from pipeline.stages.generate.task_config import JudgingConfig
from pipeline.stages.generate.task_images import Slices, choose_like, choose_real, classes_of, read_real


@dataclass(frozen=True, slots=True)
class Judged:
    """A drawing and what the judge found."""

    drawing: Drawing
    quality: ImageQuality

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.drawing.name,
            "method": self.drawing.method,
            "options": self.drawing.options,
            **self.quality.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class Court:
    """The judge of tasks on the same data, and the real images: held-out ones, and those that the models learned.

    `attributes` make an image's class. Most of the judge's time goes into the features of the real images, so tasks on
    the same data share a court.
    """

    held_out: Slices
    learned: Slices
    attributes: tuple[str, ...]
    judge: ImageJudge

    @classmethod
    def open(cls, task: OpenTask, judging: JudgingConfig) -> Court:
        """Read the real images of a task; held out are those with the condition of all its images, if it fixes one.

        Raises:
            EmptySelection: a set has none, or too few images or patients.
            ConfigError: the model sees volumes.
        """
        with Catalogue.open(task.settings) as catalogue:
            chosen, train = (
                choose_real(task.run, task.settings, catalogue, sets) for sets in (judging.against, ("train",))
            )
        like = choose_like(chosen, task.config.fixed)
        held_out, learned = (read_real(one, task.run, task.settings, task.model) for one in (like, train))
        attributes = attributes_of(judging, task.config.fixed)
        judge = ImageJudge(_real_images(held_out, attributes), _real_images(learned, attributes))
        return cls(held_out, learned, attributes, judge)

    def judge_all(self, drawings: Sequence[Drawing]) -> Iterator[Judged]:
        """Yield what the judge finds about each drawing.

        Raises:
            ConfigError: there are too few images, or of another size.
        """
        for drawing in drawings:
            classes = classes_of(drawing.about, self.attributes)
            quality = self.judge.judge(drawing.images, classes=classes, seconds=drawing.seconds, steps=drawing.steps)
            yield Judged(drawing, quality)


def attributes_of(judging: JudgingConfig, fixed: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the attributes that make an image's class: those that were asked for, where all images have the same."""
    return tuple(name for name in judging.classes if fixed is None or name in fixed)


def _real_images(slices: Slices, attributes: Sequence[str]) -> RealImages:
    return RealImages(slices.images, slices.patients, classes_of(slices.about, attributes))


def quality_table(rows: Sequence[Judged]) -> str:
    """Return the table of a task: real against real, then each drawing; columns that are empty throughout are left
    out.
    """
    lines = [{"images": "real against real", **rows[0].quality.floor_row()}]
    lines += [{"images": f"{row.drawing.method}, {row.drawing.name}", **row.quality.row()} for row in rows]
    return table_of(lines)


def table_of(lines: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table of lines with the same columns, without the columns that are empty throughout."""
    columns = [name for name in lines[0] if any(line[name] for line in lines)]
    return markdown_table(columns, [[line[name] for name in columns] for line in lines])
