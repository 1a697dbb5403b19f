"""A hospital of 60 phantom patients with masks and eight unread ones, a trained run, a benchmark with an ensemble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.config import Settings, load_config
from pipeline.types import RunRef

RUN = """
name: tiny
unit: slice
data:
  route: phantom-mr
  normaliser: {kind: mr_percentile, image_size: 32}
  splits:
    normals: {train: 0.3, validate: 0.25, calibrate: 0.2, develop: 0.15, test: 0.1}
    others: {develop: 0.6, test: 0.4}
method: {name: ae, widths: [8, 16, 16], hidden: 64}
training: {images: 128, batch_size: 16, validate_every_images: 128}
detection:
  residual: {kind: l1, median: 3, erode: 1}
  aggregate: {map: top_fraction, fraction: 0.03}
  flagging: {alpha: 0.2}
evaluation: {resamples: 100}
"""
BENCHMARK = """
name: tiny
base: {file: run.yaml}
criterion: auroc
methods:
  - {name: ae, method: {name: ae, widths: [8, 16, 16], hidden: 64}}
  - {name: broken, method: {name: ae, widths: [8, 16, 16], hidden: 64, lr: 1.0e+30}}
  - {name: both, members: [ae, small], scores: [own]}
  - {name: small, method: {name: ae, widths: [8, 8], hidden: 16}, training: {images: 64}, scores: [own], seeds: [0, 1]}
  - {name: pair, members: [small], over_seeds: true, scores: [own]}
scores:
  - {name: own}
  - {name: smooth, detection: {residual: {kind: ssim}, transform: two_sided}}
"""


@dataclass(frozen=True, slots=True)
class Hospital:
    """A workspace and the files of its run and benchmark."""

    settings: Settings
    run_file: Path
    benchmark_file: Path


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory, new_hospital: Callable[[], Settings]) -> Hospital:
    """Everything ingested and labelled; nothing trained. Shared by the session: leave its labels as they are."""
    from pipeline.data.ingest.ingest import ingest
    from pipeline.data.labels.labels import import_labels
    from pipeline.dicom.phantom.folder import SYNTAXES, write_labels, write_phantoms

    folder, settings = tmp_path_factory.mktemp("hospital-files"), new_hospital()
    read = write_phantoms(folder / "read", 60, "MR", 0.3, 11, size=32, slices=3, grades=(3,), syntaxes=SYNTAXES[:1])
    write_phantoms(folder / "unread", 8, "MR", 0.5, 12, size=32, slices=3, grades=(3,))
    ingest([folder / "read", folder / "unread"], settings)
    import_labels(write_labels(read.studies, folder), settings)
    (folder / "run.yaml").write_text(RUN)
    (folder / "benchmark.yaml").write_text(BENCHMARK)
    return Hospital(settings, folder / "run.yaml", folder / "benchmark.yaml")


@pytest.fixture(scope="session")
def trained_run(hospital: Hospital) -> RunRef:
    """A tiny autoencoder, trained for a second; neither calibrated nor evaluated."""
    from pipeline.stages.detect.train import train
    from pipeline.stages.run.run_config import RunConfig

    return train(load_config(hospital.run_file, RunConfig), hospital.settings)


@pytest.fixture(scope="session")
def evaluated_run(hospital: Hospital, trained_run: RunRef) -> RunRef:
    """The same run, calibrated outside the registry and measured on develop."""
    from pipeline.stages.detect.calibrate import calibrate
    from pipeline.stages.detect.evaluate import evaluate

    run = calibrate(trained_run, hospital.settings, to_registry=False).run
    evaluate(run, hospital.settings)
    return run
