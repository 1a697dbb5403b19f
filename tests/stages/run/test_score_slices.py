"""Only series that were read to their end are scored: no slice of another one counts anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.intensity import CTWindow
from pipeline.data.images.normalise import Normaliser
from pipeline.data.sets.selection import Selection
from pipeline.detection.config import DetectionConfig
from pipeline.detection.controls import ControlModel, control_slices
from pipeline.detection.detector import Detector
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.errors import CatalogueError
from pipeline.methods.ae import AeConfig
from pipeline.methods.stored_model import Model
from pipeline.stages.detect.calibrate import _calibration
from pipeline.stages.detect.score_table import build_slice_table
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.score_slices import score_dataset, scored_slices
from pipeline.types import SliceRef, SliceResult

SIZE, BATCH = 32, 2  # a batch is shorter than a series, so that slices are scored before the damage shows


class Frames:
    """A store of noisy discs; one of them cannot be read."""

    def __init__(self, damaged: str = "") -> None:
        self.damaged = damaged

    def get(self, key: str, frame: int | None = None) -> np.ndarray:
        if key == self.damaged:
            raise CatalogueError(f"The pixel object {key} is damaged.")
        rng = np.random.default_rng(sum(map(ord, key)))
        y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
        return np.where(x**2 + y**2 < 0.6, 1064 + 40 * rng.normal(size=x.shape), 24).astype(np.uint16)


def refs(*series: str) -> list[SliceRef]:
    attributes = InstanceAttributes(modality="CT", rows=SIZE, columns=SIZE, rescale=((1.0, -1024.0),)).to_json()
    return [
        SliceRef(f"{name}{i}", 0, name, f"study-{name}", f"patient-{name}", f"{name}{i}", attributes, i / 3, "normal")
        for name in series
        for i in range(4)
    ]


def data_of(damaged: str, *series: str) -> SliceDataset:
    return SliceDataset(refs(*series), Frames(damaged), Normaliser(CTWindow(image_size=SIZE)), cache="none")


@pytest.fixture
def detector() -> Detector:
    config = DetectionConfig(batch_size=BATCH)
    model = Model(AeConfig(widths=(8, 8), hidden=16).build(SIZE), Normaliser(CTWindow(image_size=SIZE)))
    return Detector(model, config, "ct")


@pytest.fixture
def config() -> RunConfig:
    normaliser = {"kind": "ct_window", "image_size": SIZE}
    values = {"name": "x", "unit": "slice", "data": {"route": "ct", "normaliser": normaliser}, "method": {"name": "ae"}}
    return RunConfig.model_validate({**values, "detection": {}})


@pytest.mark.parametrize("damaged", ["a3", "b0", "b3", "c3"])
def test_a_series_that_breaks_half_way_leaves_no_slice(detector: Detector, damaged: str) -> None:
    offered: list[SliceResult] = []
    scores, rejected = score_dataset(detector, data_of(damaged, "a", "b", "c"), offered.append)
    left = sorted({"a", "b", "c"} - {damaged[0]})
    assert [score.series_id for score in scores] == [name for name in left for _ in range(4)]
    assert [(item.id, item.score) for item in offered] == [(f"{s.instance_id}/{s.frame}", s.score) for s in scores]
    assert [series.series_id for series in rejected] == [damaged[0]]


def test_the_others_score_as_without_it(detector: Detector) -> None:
    with_it, _ = score_dataset(detector, data_of("b3", "a", "b", "c"))
    without, _ = score_dataset(detector, data_of("", "a", "c"))
    assert with_it == without


def test_its_pixels_do_not_calibrate(detector: Detector, config: RunConfig) -> None:
    """The pixel histogram once took the slices that came before the damage."""
    with_it, without, whole = (
        _calibration(detector, data, config, Selection((), (), {}), set())
        for data in (data_of("b3", "a", "b", "c"), data_of("", "a", "c"), data_of("", "a", "b", "c"))
    )
    assert with_it == without != whole


def test_it_has_no_row_in_the_score_table(detector: Detector) -> None:
    """The table once kept its first slices, and gave the slices after it the controls of others."""
    clean = data_of("", "a", "c")
    controls = ControlModel.fit(control_slices(clean, Frames()))
    table = build_slice_table(detector, data_of("b3", "a", "b", "c"), Frames("b3"), controls, None)
    expected = build_slice_table(detector, clean, Frames(), controls, None)
    assert table["unit_id"].tolist() == [f"{name}{i}/0" for name in "ac" for i in range(4)]
    assert table.equals(expected)


def test_slices_come_before_the_whole_set_is_read(detector: Detector) -> None:
    first = next(scored_slices(detector, data_of("c0", "a", "b", "c")))
    assert first.id == "a0/0" and detector.native(first).values.shape == (SIZE, SIZE)
