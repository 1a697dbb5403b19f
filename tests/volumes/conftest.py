"""Phantom volumes in a pixel store, in files, and in a small hospital that a detector of volumes was trained in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Settings, load_config
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.normalise import CTWindow, Normaliser
from pipeline.data.images.volume import VolumeConfig
from pipeline.data.store.pixel_store import PixelStore
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.phantom.folder import write_labels, write_phantoms
from pipeline.methods import build_method, parse_method
from pipeline.methods.stored_model import Model
from pipeline.stages.detect.calibrate import CalibrationReport, calibrate
from pipeline.stages.detect.train import train
from pipeline.stages.run.run_config import RunConfig
from pipeline.types import SliceRef

SIZE = 32
# Beside `small_methods.yaml`: fields that would be slow on volumes.
CHEAP: dict[str, dict[str, Any]] = {
    "ddpm": {"denoiser": {"patch": 1, "widths": (8, 8), "attention": (False, False)}, "steps": 1},
    "diff_ae": {"denoiser": {"patch": 1, "widths": (8, 8), "attention": (False, False)}, "steps": 1},
    "latent_diffusion": {"steps": 1},
    "vq_vae2": {"samples": 1},
}
FINE = ("ae", "ae_u", "vae", "conditional_vae", "vampprior", "vq_vae", "ddpm")  # their networks take cubes of 16
RUN = """
name: tiny-volumes
data:
  route: phantom-mr
  normaliser: {kind: mr_percentile, image_size: 32}
  volumes: {tile: 16, slice_mm: 5, least_slices: 8, patches: 6}
  splits:
    normals: {train: 0.4, validate: 0.15, calibrate: 0.25, develop: 0.2}
    others: {develop: 1.0}
method: {name: ae, widths: [8, 16], hidden: 32, latent: 8}
training: {images: 160, batch_size: 8, validate_every_images: 80}
detection:
  residual: {kind: l1}
  aggregate: {map: top_fraction, slices: top_k_mean}
  flagging: {rule: capacity, capacity: 2, alpha: 0.2}
evaluation: {resamples: 100}
"""

Refs = Callable[..., list[SliceRef]]


@pytest.fixture
def store(tmp_path: Path) -> PixelStore:
    """An empty pixel store."""
    return PixelStore(str(tmp_path / "store"))


@pytest.fixture
def volume(store: PixelStore) -> Refs:
    """`volume(name, count, seed, shape)`: a CT ball in air with a random texture, slices 5 mm apart."""

    def make(name: str = "a", count: int = 20, seed: int = 0, shape: tuple[int, int] = (40, 48)) -> list[SliceRef]:
        stored = ball(count, shape, seed)
        refs = []
        for index, pixels in enumerate(stored):
            attributes = InstanceAttributes(modality="CT", rows=shape[0], columns=shape[1], rescale=((1.0, -1024.0),))
            place = index / (count - 1)
            refs.append(
                SliceRef(
                    instance_id=f"{name}{index}",
                    frame=0,
                    series_id=name,
                    study_id=name,
                    patient_id=name,
                    pixel_key=store.put(pixels[None]),
                    attributes=attributes.to_json(),
                    relative_position=place,
                    geometric_position=place,
                    label="normal",
                    slice_mm=5.0,
                )
            )
        return refs

    return make


def ball(count: int, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Stored values uint16 [count, *shape]: 1064 + texture inside a ball, 24 outside (-1000 HU)."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in (count, *shape)), indexing="ij")
    inside = z**2 / 1.7 + y**2 + x**2 < 0.7
    return np.where(inside, 1064 + 40 * rng.normal(size=inside.shape), 24).astype(np.uint16)


@pytest.fixture
def slices(store: PixelStore) -> Callable[..., SliceDataset]:
    """`slices(refs, selected)`: whole series as a data set, uncached."""

    def make(refs: list[SliceRef], selected: list[SliceRef] | None = None, **options: Any) -> SliceDataset:
        members: dict[str, list[SliceRef]] = {}
        for ref in refs:
            members.setdefault(ref.series_id, []).append(ref)
        options = {"cache": "none", "members": members, "whole": True, **options}
        return SliceDataset(
            refs if selected is None else selected, store, Normaliser(CTWindow(image_size=SIZE)), **options
        )

    return make


@pytest.fixture
def build(small: Mapping[str, Any]) -> Callable[..., Detector]:
    """`build(method, seed, grid={...}, residual={...})`: untrained, cubes of 16 or 32 voxels of a 32 x 32 grid."""

    def make(method: str = "ae", seed: int = 0, grid: dict[str, Any] | None = None, **detection: Any) -> Detector:
        volumes = VolumeConfig(**{"tile": 16 if method in FINE else 32, **(grid or {})})
        values = {"name": method, **small.get(method, {}), **CHEAP.get(method, {})}
        built = build_method(parse_method(values), volumes.tile, spatial_dims=3, seed=1)
        config = DetectionConfig.model_validate({"residual": {"kind": "l1"}, **detection})
        return Detector(Model(built.eval(), Normaliser(CTWindow(image_size=SIZE)), volumes), config, "ct", seed)

    return make


@dataclass(frozen=True, slots=True)
class VolumeHospital:
    """A workspace with a champion that reads volumes, and where its files lie."""

    settings: Settings
    report: CalibrationReport
    inbox: Path
    run_file: Path


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory, new_hospital: Callable[[], Settings]) -> VolumeHospital:
    """36 labelled phantoms and 3 unlabelled ones, brain MR, 16 slices of 32 pixels each; trained and calibrated."""
    from pipeline.data.ingest.ingest import ingest
    from pipeline.data.labels.labels import import_labels

    folder, settings = tmp_path_factory.mktemp("volumes"), new_hospital()
    studies = write_phantoms(folder / "archive", 36, "MR", 1 / 6, 5, size=32, slices=16, grades=(3,)).studies
    write_phantoms(folder / "inbox", 3, "MR", 0.5, 6, size=32, slices=16, grades=(3,))
    write_phantoms(folder / "inbox" / "short", 1, "MR", 0.0, 7, size=32, slices=4)
    (folder / "run.yaml").write_text(RUN)
    ingest([folder / "archive", folder / "inbox"], settings)
    import_labels(write_labels(studies, folder), settings)
    run = train(load_config(folder / "run.yaml", RunConfig), settings)
    return VolumeHospital(settings, calibrate(run, settings), folder / "inbox", folder / "run.yaml")


@pytest.fixture
def renamed() -> Callable[[list[SliceRef]], list[SliceRef]]:
    """The same pixels under other pseudonyms, as after a rotation of the key."""

    def rename(refs: list[SliceRef]) -> list[SliceRef]:
        return [replace(r, instance_id=f"new-{r.instance_id}", series_id=f"new-{r.series_id}") for r in refs]

    return rename
