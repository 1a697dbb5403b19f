"""One pass of a detector over a labelled set: rows of the score table, and pixel cases stored on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from pipeline.data.images.dataset import SliceDataset
from pipeline.data.store.pixel_store import PixelStore
from pipeline.detection.controls import CONTROLS, ControlModel, brightness_map, control_scores, control_slice
from pipeline.detection.scorer import Scorer
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.evaluation.pixel_metrics import PixelCase
from pipeline.evaluation.table import CONTROL
from pipeline.stages.run.score_slices import OnProgress, findings, scored_slices
from pipeline.types import SliceRef, SliceResult, SliceScore

BRIGHTNESS = f"{CONTROL}brightness"
GROUPS = ("site", "scanner", "sex")


class PixelCases:
    """Pixel cases in a folder, one file per slice, since they are read twice on develop and need not fit in memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._refs: list[SliceRef] = []

    def add(self, ref: SliceRef, native: SliceResult, brightness: np.ndarray, mask: np.ndarray | None) -> None:
        """Store one slice with a map; arrays [H, W] on the native grid."""
        none = np.zeros(native.body.shape, bool)
        arrays: dict[str, Any] = {"model": native.values, "brightness": brightness, "body": native.body}
        np.savez(self._file(len(self._refs)), mask=none if mask is None else mask, **arrays)
        self._refs.append(ref)

    def __len__(self) -> int:
        return len(self._refs)

    def __iter__(self) -> Iterator[PixelCase]:
        for number, ref in enumerate(self._refs):
            with np.load(self._file(number)) as arrays:
                maps = {self.name: arrays["model"], BRIGHTNESS: arrays["brightness"]}
                yield PixelCase(ref.patient_id, ref.slice_id, ref.label, maps, arrays["body"], arrays["mask"])

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def build_slice_table(
    detector: Scorer,
    data: SliceDataset,
    store: PixelStore,
    controls: ControlModel,
    cases: PixelCases | None,
    on_progress: OnProgress | None = None,
) -> pd.DataFrame:
    """Score a labelled data set and return one row per slice: the score, an ensemble's members, the trivial controls.

    Slices whose body is empty have no score and no row. With `cases`, their maps, masks and brightness are stored.
    """
    rows: list[dict[str, Any]] = []
    places = {ref.slice_id: index for index, ref in enumerate(data.slices)}
    names = detector.member_names
    for item in scored_slices(detector, data, on_progress):
        if math.isnan(item.score):
            continue
        ref, seen = data.ref(item.id), control_slice(data, places[item.id], store)
        values = {f"{CONTROL}{name}": value[0] for name, value in control_scores([seen], controls).items()}
        rows.append(_row(ref, item.score, values) | dict(zip(names, item.members, strict=True)))
        if cases is not None and item.values is not None:
            bright = brightness_map(detector.normaliser, seen, item.history[-1])
            cases.add(ref, detector.native(item, reconstruction=False), bright, data.read_mask(item.id))
    frame = pd.DataFrame(rows)
    return frame.dropna(axis="columns", how="all") if rows else frame


def _row(ref: SliceRef, score: float, controls: Mapping[str, float]) -> dict[str, Any]:
    attributes = InstanceAttributes.from_json(ref.attributes)
    return {
        "unit_id": ref.slice_id,
        "instance_id": ref.instance_id,
        "frame": ref.frame,
        "series_id": ref.series_id,
        "stack": ref.stack,
        "study_id": ref.study_id,
        "patient_id": ref.patient_id,
        "label": ref.label,
        "score": score,
        "relative_position": ref.relative_position,
        "image_is_subject": ref.image_is_subject,
        **{name: getattr(attributes, name) for name in GROUPS},
        "age_band": attributes.age_band,
        **controls,
    }


def study_table(detector: Scorer, slices: pd.DataFrame) -> pd.DataFrame:
    """Aggregate a slice table to studies: the detector's own rule for the score, the mean over slices for controls.

    A study is abnormal if one of its slices is.
    """
    if slices.empty:
        return slices
    scores = [_study_scores(detector, slices, column) for column in ("score", *detector.member_names)]
    groups = slices.groupby("study_id")
    controls = [f"{CONTROL}{name}" for name in CONTROLS if name != "slice_position" and f"{CONTROL}{name}" in slices]
    columns = ["patient_id", "image_is_subject", "age_band", *GROUPS]
    table = pd.concat([*scores, groups[columns].first(), groups[controls].mean()], axis="columns", join="inner")
    table["label"] = groups["label"].agg(lambda labels: "abnormal" if (labels == "abnormal").any() else "normal")
    return table.rename_axis("unit_id").reset_index()


def _study_scores(detector: Scorer, slices: pd.DataFrame, column: str) -> pd.Series:
    """Return the score of each study, from the slices' scores in a column."""
    places = slices[["instance_id", "frame", "series_id", "study_id", "patient_id", "stack"]].to_dict("records")
    scores = [SliceScore(**cast(Any, p), score=score) for p, score in zip(places, slices[column], strict=True)]
    results, _ = findings(detector, scores)
    return pd.Series({finding.study_id: finding.score for finding in results}, name=column)
