"""Step of `train` for runs that learn from unlabelled scans: what an earlier detector finds unusual in them.

The earlier detector (`unlabelled.teacher`) learned from normals alone. Its thresholds come from validate normals, and
labels are not read: not those of the unlabelled scans either, where they have any. Only patients in train give scans
(`data.splits.unlabelled` puts patients without labels there, for good), so calibrate, develop, gate and test stay
unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from pipeline import durable
from pipeline.corruption.findings import Findings, HarvestConfig, harvest
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.sets.selection import Selection
from pipeline.detection.pixel_threshold import PixelHistogram
from pipeline.detection.residual import counted_body
from pipeline.detection.scorer import Scorer
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation import style
from pipeline.evaluation.findings_sheet import draw_findings
from pipeline.stages.run.load_slices import choose_unlabelled
from pipeline.stages.run.open_run import OpenFolder, OpenRun
from pipeline.stages.run.run_config import UnlabelledConfig
from pipeline.stages.run.score_slices import scored_slices
from pipeline.types import RunRef, SliceResult

FILE, SHEET = "findings.safetensors", "findings.png"


def read_findings(opened: OpenFolder, unlabelled: UnlabelledConfig, teacher: RunRef) -> Findings:
    """Return the findings that a run learns from; they are harvested once, and kept in its folder.

    Raises:
        EmptySelection: there are no unlabelled scans, or the teacher finds nothing in them.
        ConfigError: the teacher gives no map.
        ArtefactError: the teacher is missing or altered.
    """
    place = opened.folder.path / FILE
    if not place.exists():
        earlier = OpenRun.load_uncalibrated(teacher, opened.catalogue, opened.settings)
        findings = _harvest(earlier, choose_unlabelled(opened.catalogue, opened.config, opened.settings), unlabelled)
        _draw(findings, opened.folder.path / SHEET)
        durable.write(place, save({"images": findings.images, "outlines": findings.outlines}))
    return Findings(**load(place.read_bytes()))


def _draw(findings: Findings, place: Path) -> None:
    """Save a sheet of the strongest findings (first channel), so that one can see what the run learns from."""
    style.save_png(draw_findings(findings.images[:, 0].numpy(), findings.outlines[:, 0].numpy()), place)


def _harvest(teacher: OpenRun, selection: Selection, config: UnlabelledConfig) -> Findings:
    if not selection.slices:
        raise EmptySelection(
            f"There are no unlabelled scans to learn from on the route {teacher.route!r}: they must be of patients in "
            "train. Set data.splits.unlabelled to the share of patients without labels who enter it, or remove "
            f"`unlabelled`.{selection.left_out()}"
        )
    if not teacher.detector.has_maps:
        raise ConfigError(
            f"{teacher.folder.run_id} scores without a map, so it cannot say where a finding is. Choose another "
            "method in unlabelled.teacher."
        )
    validate = teacher.dataset(teacher.choose(sets=("validate",)))
    thresholds = _thresholds(teacher.detector, validate, config.harvest)
    findings = _best(teacher.detector, teacher.dataset(selection), thresholds, config.harvest)
    if not findings:
        raise EmptySelection(
            f"{teacher.folder.run_id} finds nothing in {len(selection.slices)} unlabelled images that normal ones "
            "would not have. Lower unlabelled.harvest.area, use more images, or remove `unlabelled`."
        )
    return Findings.join(findings)


def _thresholds(detector: Scorer, normals: SliceDataset, config: HarvestConfig) -> tuple[float, float]:
    """Return the thresholds of a seed and of a region: quantiles of the maps of validate normals."""
    histogram = PixelHistogram()
    for result, surprise, counted in _maps(detector, normals):
        histogram.add(normals.ref(result.id).patient_id, surprise[counted].numpy())
    quantiles = histogram.quantiles((config.seeds, config.regions))
    return quantiles.threshold(config.seeds), quantiles.threshold(config.regions)


def _best(
    detector: Scorer, data: SliceDataset, thresholds: tuple[float, float], config: HarvestConfig
) -> list[Findings]:
    """Return the findings with the most seeds, those first."""
    ranked: list[tuple[float, Findings]] = []
    for result, surprise, counted in _maps(detector, data):
        image = torch.as_tensor(data.item(result.id)["image"])
        for seeds, outline in harvest(surprise.masked_fill(~counted, -torch.inf), thresholds, config):
            ranked.append((seeds, Findings(image[None], outline[None])))
    return [findings for _, findings in sorted(ranked, key=lambda one: -one[0])[: config.most]]


def _maps(detector: Scorer, data: SliceDataset) -> Iterator[tuple[SliceResult, Tensor, Tensor]]:
    """Yield the results of all slices, with their maps and the pixels that count, [1, H, W] on the model's grid."""
    for result in scored_slices(detector, data):
        body = torch.from_numpy(result.body)[None, None]
        counted = counted_body(body, detector.config.residual)[0]
        yield result, torch.from_numpy(cast(np.ndarray, result.values))[None], counted
