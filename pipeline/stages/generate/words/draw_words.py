"""Task `text-to-image`: images from prompts, judged by a classifier of real images, at several guidances."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.images.captions import Caption, parse_caption
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.captioned_sheet import draw_captioned
from pipeline.evaluation.style import save_png
from pipeline.evaluation.word_agreement import ALL, PARTS
from pipeline.methods import Model, load_model
from pipeline.methods.text_to_image import TextToImageConfig
from pipeline.nn.prompt_encoder import TextConfig
from pipeline.stages.detect.train import train
from pipeline.stages.generate.draw import draw_part
from pipeline.stages.generate.judge import table_of
from pipeline.stages.generate.pictures import to_pixels
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel
from pipeline.stages.generate.words.word_court import WordCourt, open_words
from pipeline.stages.generate.words.word_tasks import TextToImageTask, WordTask
from pipeline.stages.run.run_folder import RunFolder

BATCH = 32
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class WordRow:
    """What the judge found about images from prompts.

    Attributes:
        name: of the row.
        seen, unseen: share of images with the words asked for, by part, among combinations that were learned and that
            were left out of the training.
        kid: against held-out images with the same captions; None for real images.
        seconds: CPU seconds per image.
    """

    name: str
    seen: Mapping[str, Estimate]
    unseen: Mapping[str, Estimate]
    kid: Estimate | None = None
    seconds: float = 0.0

    def line(self) -> dict[str, str]:
        """Return the row of the table."""
        cells = {part: _text(self.seen.get(part)) for part in (*PARTS, ALL)}
        cells |= {f"unseen: {part}": _text(self.unseen.get(part)) for part in (*PARTS, ALL)}
        seconds = f"{self.seconds:.3f}" if self.seconds else ""
        return {"images": self.name, **cells, "KID": _text(self.kid), "CPU s per image": seconds}

    def numbers(self) -> dict[str, float]:
        """Return its numbers by name."""
        values = {f"agreement_{part}": one.value for part, one in self.seen.items()}
        values |= {f"unseen_{part}": one.value for part, one in self.unseen.items()}
        return values | ({} if self.kid is None else {"kid": self.kid.value})


def run_text_to_image(
    config: TextToImageTask, settings: Settings, progress: bool = False, on_progress: OnProgress | None = None
) -> TaskReport:
    """Draw images from prompts at each guidance, and from the baseline's classes; judge, draw the sheet, and log.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while models are trained.
        on_progress: called with (drawings done, drawings in all).

    Raises:
        ArtefactError: the trained run is missing, or its model has another SHA-256.
        ConfigError: the method does not read prompts, or the run learned from what the task judges against.
        EmptySelection: a set lacks labelled slices.
    """
    trained, folder = open_words(config, settings, progress)
    with recorded(folder, settings) as summary:
        baseline = _train_baseline(config, trained, settings, progress)
        court = WordCourt.open(config, trained, settings)
        rows = [*_real_rows(court), *_judge_all(config, court, trained.model, baseline, on_progress)]
        _draw_sheet(config, court, trained, folder.sheet)
        metrics = next(row for row in rows if row.seconds).numbers()
        table = table_of([row.line() for row in rows])
        judged = tuple({"name": row.name, **row.numbers()} for row in rows)
        report = TaskReport(folder, table, metrics, judged, tuple(_warn(rows)))
        report.publish(config, settings)
        summary |= metrics
    return report


def _train_baseline(config: TextToImageTask, trained: TrainedModel, settings: Settings, progress: bool) -> Model | None:
    """Train the same model on classes, that is on whole captions without words."""
    if not config.baseline:
        return None
    text = TextConfig(kind="whole", width=cast(TextToImageConfig, trained.run.method).text.width)
    method = trained.run.method.model_copy(update={"text": text})
    run = trained.run.model_copy(update={"name": f"{trained.run.name}-classes", "method": method, "detection": None})
    return load_model(RunFolder.open(train(run, settings, progress=progress, purpose="model")).model, device="auto")


def _real_rows(court: WordCourt) -> list[WordRow]:
    often = court.classifier.most_frequent(court.held_out.captions)
    floor = court.judge.judge(court.held_out.slices.images).floor_kid
    return [
        WordRow("real, held out (the classifier's accuracy)", court.accuracy, {}, floor),
        WordRow("most frequent word of real images", {part: Estimate(value=one) for part, one in often.items()}, {}),
    ]


def _judge_all(
    config: TextToImageTask, court: WordCourt, model: Model, baseline: Model | None, on_progress: OnProgress | None
) -> list[WordRow]:
    asked = [(f"text, guidance {s:g}", model, s) for s in config.guidance]
    if baseline is not None:
        asked.append((f"class without text, guidance {config.guidance[-1]:g}", baseline, config.guidance[-1]))
    rows = []
    for number, (name, one, s) in enumerate(asked, start=1):
        rows.append(_judge(config, court, one, name, s))
        if on_progress is not None:
            on_progress(number, len(asked))
    return rows


def _judge(config: TextToImageTask, court: WordCourt, model: Model, name: str, guidance: float) -> WordRow:
    start = time.process_time()
    mixture = draw_prompts(config, model, court.mixture(config.count, config.seed), guidance, config.negative)
    seconds = (time.process_time() - start) / len(mixture)
    seen, unseen = ([one for one in kind for _ in range(config.each)] for kind in court.combinations())
    kid = court.judge.judge(mixture).kid
    agreements = [
        court.classifier.agreement(draw_prompts(config, model, captions, guidance, config.negative), captions)
        if captions
        else {}
        for captions in (seen, unseen)
    ]
    return WordRow(name, agreements[0], agreements[1], kid, seconds)


def draw_prompts(
    config: WordTask, model: Model, captions: Sequence[Caption], guidance: float, negative: str = ""
) -> Tensor:
    """Return an image for each caption, [N, C, H, W], on the CPU; image i depends on i, the seed and its caption."""
    about = [{"caption": caption.write()} for caption in captions]
    options: dict[str, Any] = {"guidance": guidance, "negative": negative, "steps": config.steps}
    rows = [range(first, min(first + BATCH, len(about))) for first in range(0, len(about), BATCH)]
    return torch.cat([draw_part(model.method, part, config.seed, about, options) for part in rows])


def _draw_sheet(config: TextToImageTask, court: WordCourt, trained: TrainedModel, file: Path) -> None:
    """Draw two images of each combination, and one of each further prompt, with their captions beneath."""
    seen, unseen = court.combinations()
    captions = [one for one in (*seen, *unseen) for _ in range(2)] + [parse_caption(one) for one in config.prompts]
    images = draw_prompts(config, trained.model, captions, config.guidance[-1], config.negative)
    names = [one.write() + (" (unseen)" if one in unseen else "") for one in captions]
    title = f"{config.name}: synthetic images of {trained.run.method.name}, guidance {config.guidance[-1]:g}"
    save_png(draw_captioned(to_pixels(images), names, title), file)


def _warn(rows: Sequence[WordRow]) -> list[str]:
    """Say where text does not beat classes without text, or the most frequent word."""
    drawn = [row for row in rows if row.name.startswith("text")]
    classes = [row for row in rows if row.name.startswith("class")]
    best = max((row.seen[ALL].value for row in drawn), default=0.0)
    warnings = [
        f"{row.name} reaches {row.seen[ALL].value:.2f} of all words, and the best guidance with text {best:.2f}: text "
        "does not beat the plain class"
        for row in classes
        if row.seen[ALL].value >= best
    ]
    often = next(row for row in rows if row.name.startswith("most"))
    for part in PARTS:
        reached = max((row.seen[part].value for row in drawn if part in row.seen), default=None)
        if reached is not None and reached <= often.seen[part].value:
            warnings.append(f"The {part} of images is right in {reached:.2f}, no more than the most frequent word")
    return warnings


def _text(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return estimate.text(2) if estimate.low is not None else f"{estimate.value:.2f}"
