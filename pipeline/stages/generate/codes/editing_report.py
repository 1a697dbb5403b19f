"""Report of edits: tables, numbers, what did not work, and the sheet of images at several strengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from pipeline.config import Settings
from pipeline.errors import EmptySelection
from pipeline.evaluation.sample_sheet import Strip, draw_sheet
from pipeline.stages.generate.codes.edited_heatmap import HeatmapRow
from pipeline.stages.generate.codes.editing import EditingRow, Edits, Originals
from pipeline.stages.generate.codes.editing_task import EditedAttribute, EditTask
from pipeline.stages.generate.judge import table_of
from pipeline.stages.generate.pictures import may_show, to_pixels
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_report import TaskReport

CHANCE = 0.6  # AUROC of a probe below which its direction means little


@dataclass(frozen=True, slots=True)
class AttributeResult:
    """All that was done with one attribute.

    Attributes:
        attribute: its name.
        originals: its images.
        edits: of each editor, along the probe's direction and along a random one, the model's first.
        heatmaps: of a lesion with masks, else ().
    """

    attribute: EditedAttribute
    originals: Originals
    edits: tuple[Edits, ...]
    heatmaps: tuple[HeatmapRow, ...] = ()


def report_edits(folder: TaskFolder, results: Sequence[AttributeResult]) -> TaskReport:
    """Return the report of the task."""
    tables = [table_of([_line(edit.row) for one in results for edit in one.edits])]
    maps = [row for one in results for row in one.heatmaps]
    if maps:
        tables.append(table_of([{"map": row.name, "pixel AP": row.pixel_ap.text()} for row in maps]))
    rows = [edit.row.model_dump(mode="json") for one in results for edit in one.edits]
    return TaskReport(
        folder,
        "\n\n".join(tables),
        _metrics(results),
        (*rows, *(row.model_dump(mode="json") for row in maps)),
        tuple(sentence for one in results for sentence in _warn(one)),
    )


def _line(row: EditingRow) -> dict[str, str]:
    return {
        "attribute": row.attribute,
        "editor": row.editor,
        "probe AUROC": "" if row.probe is None else row.probe.text(),
        "effect by the judge": row.effect.text(2),
        "still itself": row.likeness.text(2),
        "change of pixels": row.change.text(),
        "SSIM unedited": row.ssim.text(),
    }


def _metrics(results: Sequence[AttributeResult]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for one in results:
        row = one.edits[0].row
        metrics[f"effect_{one.attribute}"] = row.effect.value
        metrics[f"likeness_{one.attribute}"] = row.likeness.value
        metrics |= {} if row.probe is None else {f"probe_auroc_{one.attribute}": row.probe.value}
        metrics |= {f"pixel_ap_{_key(heatmap.name)}": heatmap.pixel_ap.value for heatmap in one.heatmaps}
    return {**metrics, "ssim": results[0].edits[0].row.ssim.value}


def _key(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def _warn(result: AttributeResult) -> Iterator[str]:
    """Yield a sentence if the model's code does not know the attribute, or if its edits do no more than chance."""
    own, by_chance = result.edits[0].row, result.edits[1].row
    if own.probe is not None and own.probe.value < CHANCE:
        yield f"{result.attribute}: the codes of {own.editor} hardly know it: AUROC of the probe {own.probe.text()}."
    if own.effect.low is not None and own.effect.low <= max(by_chance.effect.high or 0.0, 0.0):
        yield (
            f"{result.attribute}: edits by {own.editor} are not shown to do more than those along a random direction: "
            f"effect {own.effect.text(2)} and {by_chance.effect.text(2)}."
        )


def draw_edits(results: Sequence[AttributeResult], config: EditTask, settings: Settings, name: str) -> Figure:
    """Draw some images of each attribute: the original, then the model's edits in order of strength.

    Raises:
        EmptySelection: no image may be shown.
    """
    strips = [_strip(one, config, settings) for one in results]
    return draw_sheet(strips, f"{config.name}: edits by {name}")


def _strip(result: AttributeResult, config: EditTask, settings: Settings) -> Strip:
    originals, own = result.originals, result.edits[0]
    allowed = [place for place, ref in enumerate(originals.refs) if may_show(ref, settings)]
    if not allowed:
        raise EmptySelection(
            f"None of {len(originals.refs)} images may be shown, since text may be burned into them. See the setting "
            "burned_in."
        )
    pictured, strengths = _choose(result, allowed, config.pictured), sorted(config.strengths)
    rows = [originals.images[pictured]]
    for strength in strengths:
        at = np.full(len(originals.refs), strength)
        rows.append(originals.edit(own.method, own.directions, at, pictured))
    pictures = np.stack([to_pixels(row) for row in rows], axis=1)  # [pictured, 1 + strengths, H, W]
    lower, upper = originals.sides.names
    listed = ", ".join(f"{strength:g}" for strength in strengths)
    caption = f"{result.attribute}, from {lower} to {upper}: the original, then strengths {listed}"
    return Strip(caption, pictures.reshape(-1, *pictures.shape[2:]), columns=pictures.shape[1])


def _choose(result: AttributeResult, allowed: Sequence[int], count: int) -> list[int]:
    """Return places of images that may be shown, from the upper and the lower side in turn, each of a new patient."""
    originals, chosen, seen = result.originals, [], set()
    by_side = [[place for place in allowed if originals.sides.upper[place] == side] for side in (True, False)]
    for place in (place for pair in zip(*by_side, strict=False) for place in pair):
        patient = originals.refs[place].patient_id
        if patient not in seen:
            chosen.append(place)
            seen.add(patient)
    return (chosen or list(allowed))[:count]
