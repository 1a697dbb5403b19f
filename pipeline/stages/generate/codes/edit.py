"""Task `edit`: one attribute of held-out images changed along a direction of their codes, and what else changed.

Directions come from linear probes of the codes (`pipeline.evaluation.linear_probe`). Whether an edit does what it says
is judged by a second probe, which reads features of a frozen network and learned from real images only. Beside the
model, eigen-images are edited in the same way, and both along directions drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset, iterate_batches
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.style import save_png
from pipeline.methods import parse_method
from pipeline.methods.base import Method
from pipeline.stages.generate.codes.edited_heatmap import judge_heatmaps
from pipeline.stages.generate.codes.edited_sides import sides_of
from pipeline.stages.generate.codes.editing import Originals, measure_edits, require_editor
from pipeline.stages.generate.codes.editing_report import AttributeResult, draw_edits, report_edits
from pipeline.stages.generate.codes.editing_task import EditedAttribute, EditTask
from pipeline.stages.generate.task_images import BATCH, choose_real, choose_some
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel, train_for
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.types import Label


def run_edit(
    config: EditTask,
    settings: Settings,
    progress: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> TaskReport:
    """Edit held-out images by a model and by eigen-images, judge what changed, draw the edits, and log them.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while the model is trained.
        on_progress: called with (attributes done, attributes in all).

    Raises:
        ConfigError: the method does not edit or sees volumes, or an attribute does not vary enough.
        EmptySelection: the sets have no slices of that kind.
    """
    trained = train_for(config, settings, require_editor, progress)
    if trained.model.volumes is not None:
        raise ConfigError("A model of volumes has no edits for single slices yet. Name a model of slices.")
    folder = trained.make_folder(config, settings)
    with recorded(folder, settings) as summary:
        editors = {trained.run.method.name: trained.model.method} | _baseline(config, trained, settings)
        results = []
        for number, attribute in enumerate(config.attributes, start=1):
            results.append(_edit(attribute, config, trained, editors, settings))
            if on_progress is not None:
                on_progress(number, len(config.attributes))
        save_png(draw_edits(results, config, settings, trained.run.method.name), folder.sheet)
        report = report_edits(folder, results)
        report.publish(config, settings)
        summary |= report.metrics
    return report


def _baseline(config: EditTask, trained: TrainedModel, settings: Settings) -> dict[str, Method]:
    """Return eigen-images of the training images, unless they are the model itself."""
    plain = parse_method({"name": "pca", "directions": config.components})
    if trained.run.method.name == plain.name:
        return {}
    with Catalogue.open(settings) as catalogue:
        chosen = choose_real(trained.run, settings, catalogue, ("train",))
    data = dataset(chosen, trained.run, settings, cache="none", whole=False)
    method = trained.model.method
    pca = plain.build(method.image_size, method.channels)
    pca.finish(iterate_batches(data, BATCH))
    return {plain.name: pca.eval()}


def _edit(
    attribute: EditedAttribute,
    config: EditTask,
    trained: TrainedModel,
    editors: dict[str, Method],
    settings: Settings,
) -> AttributeResult:
    originals, data = _read(attribute, config, trained, settings)
    edits = tuple(
        edit for name, method in editors.items() for edit in measure_edits(attribute, name, method, originals)
    )
    masked = attribute == "lesion" and any(ref.mask_key for ref in originals.refs)
    heatmaps = judge_heatmaps(edits[::2], originals, data) if masked else ()
    return AttributeResult(attribute, originals, edits, heatmaps)


def _read(
    attribute: EditedAttribute, config: EditTask, trained: TrainedModel, settings: Settings
) -> tuple[Originals, SliceDataset]:
    """Read the slices on either side of an attribute: labelled ones for lesions, else normal ones."""
    labels: tuple[Label, ...] = ("normal", "abnormal") if attribute == "lesion" else ("normal",)
    with Catalogue.open(settings) as catalogue:
        chosen = choose(catalogue, trained.run, settings, sets=config.of, labels=labels)
    if not chosen.slices:
        raise EmptySelection(
            f"The sets {', '.join(config.of)} have no labelled slices of the route {trained.run.data.route}. Import "
            f"labels with nightread labels import FILE.csv, or change `of`.{chosen.left_out()}"
        )
    either = sides_of(attribute, chosen.slices).places
    chosen = choose_some(replace(chosen, slices=tuple(chosen.slices[k] for k in either)), config.count, config.seed)
    data = dataset(chosen, trained.run, settings, cache="none", whole=False)
    batches = [(batch.images.clone(), batch.ids) for batch in iterate_batches(data, BATCH)]
    refs = tuple(data.ref(slice_id) for _, ids in batches for slice_id in ids)
    sides = sides_of(attribute, refs)
    return Originals.of(torch.cat([images for images, _ in batches]), refs, sides, config.seed, config.batch), data
