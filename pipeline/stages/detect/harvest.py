"""Step of `train` for runs that learn from unlabelled scans: what an earlier detector finds unusual in them.

The earlier detector (`unlabelled.teacher`) learned from normals alone. Its thresholds come from validate normals, and
labels are not read: not those of the unlabelled scans either, where they have any. Only patients in train give scans
(`data.splits.unlabelled` puts patients without labels there, for good), so calibrate, develop, gate and test stay
unseen.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
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
from pipeline.stages.run.open_run import OpenFolder, OpenRun
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import scored_slices
from pipeline.types import RunRef, SliceResult

FILE, SHEET = "findings.safetensors", "findings.png"


@dataclass(frozen=True, slots=True)
class Source:
    """Where findings come from: a trained run that finds them, and the scans that it searches."""

    teacher: RunRef
    unlabelled: Selection


def read_findings(folder: RunFolder) -> tuple[Findings, str]:
    """Return the findings that a run learns from, and the SHA-256 of its teacher.

    Raises:
        SafetensorError, OSError: they are missing or damaged.
    """
    with safe_open(folder.path / FILE, "pt") as file:
        return Findings(file.get_tensor("images"), file.get_tensor("outlines")), file.metadata()["teacher"]


def has_findings(folder: RunFolder) -> bool:
    """Return whether a run's folder holds findings; only the header is read, which contradicts a file that was cut."""
    try:
        with safe_open(folder.path / FILE, "pt") as file:
            counts = {file.get_slice(name).get_shape()[0] for name in ("images", "outlines")}
            return len(counts) == 1 and counts != {0} and "teacher" in file.metadata()
    except (OSError, SafetensorError, KeyError, TypeError):
        return False


def harvest_findings(opened: OpenFolder, source: Source, config: HarvestConfig, most: int) -> None:
    """Harvest the findings that a run learns from, at most `most`, and keep them in its folder.

    Raises:
        EmptySelection: the teacher finds nothing in the unlabelled scans.
        ConfigError: the teacher gives no map.
        ArtefactError: the teacher is missing or altered.
    """
    earlier = OpenRun.load_uncalibrated(source.teacher, opened.catalogue, opened.settings)
    config = config.model_copy(update={"most": min(config.most, most)})
    findings = _harvest(earlier, source.unlabelled, config)
    _draw(findings, opened.folder.path / SHEET)
    tensors = {"images": findings.images, "outlines": findings.outlines}
    durable.write(opened.folder.path / FILE, save(tensors, metadata={"teacher": source.teacher.sha256}))


def _draw(findings: Findings, place: Path) -> None:
    """Save a sheet of the strongest findings (first channel), so that one can see what the run learns from."""
    style.save_png(draw_findings(findings.images[:, 0].numpy(), findings.outlines[:, 0].numpy()), place)


def _harvest(teacher: OpenRun, selection: Selection, config: HarvestConfig) -> Findings:
    if not teacher.detector.has_maps:
        raise ConfigError(
            f"{teacher.folder.run_id} scores without a map, so it cannot say where a finding is. Choose another "
            "method in unlabelled.teacher."
        )
    validate = teacher.dataset(teacher.choose(sets=("validate",)))
    thresholds = _thresholds(teacher.detector, validate, config)
    findings = _best(teacher.detector, teacher.dataset(selection), thresholds, config)
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
    """Return the findings with the most seeds, those first; no more than `config.most` are ever in memory."""
    best: list[tuple[float, int, Findings]] = []
    number = count()
    for result, surprise, counted in _maps(detector, data):
        image = torch.as_tensor(data.item(result.id)["image"])
        for seeds, outline in harvest(surprise.masked_fill(~counted, -torch.inf), thresholds, config):
            heapq.heappush(best, (seeds, -next(number), Findings(image[None], outline[None])))
            if len(best) > config.most:
                heapq.heappop(best)
    return [findings for *_, findings in sorted(best, key=lambda one: one[:2], reverse=True)]


def _maps(detector: Scorer, data: SliceDataset) -> Iterator[tuple[SliceResult, Tensor, Tensor]]:
    """Yield the results of all slices, with their maps and the pixels that count, [1, H, W] on the model's grid."""
    for result in scored_slices(detector, data):
        body = torch.from_numpy(result.body)[None, None]
        counted = counted_body(body, detector.config.residual)[0]
        yield result, torch.from_numpy(cast(np.ndarray, result.values))[None], counted
