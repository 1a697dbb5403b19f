"""Saving and loading of detectors: one JSON file that names its models; an ensemble names several.

See `pipeline.detection.detector_file` for the location of the models.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import ValidationError

from pipeline import durable
from pipeline.detection.detector import Detector
from pipeline.detection.detector_file import DETECTOR, read_detector
from pipeline.detection.ensemble import Ensemble, Member, Moments
from pipeline.detection.exported_detector import is_export, read_networks
from pipeline.detection.scorer import Scorer, fields_of
from pipeline.errors import ArtefactError
from pipeline.methods.stored_model import Model, load_checked, put_on, save_model, versions
from pipeline.sealed_folder import FORMAT, MODELS, beside, name_model
from pipeline.types import RunRef


def save_detector(folder: str | Path, detector: Scorer) -> str:
    """Write `detector.json` and return its SHA-256. Models without a folder are saved in `models/`."""
    place = Path(folder)
    models = [_named(model, place) for model in detector.models]
    text = json.dumps({"format": FORMAT, "versions": versions(), "models": models, **detector.spec}, indent=2)
    durable.write(place / DETECTOR, text)
    return hashlib.sha256(text.encode()).hexdigest()


def _named(model: Model, folder: Path) -> dict[str, str]:
    origin: Any = model.origin or _save_beside(model, folder).origin
    return name_model(origin.folder, origin.sha256, folder)


def _save_beside(model: Model, folder: Path) -> Model:
    """Save a model under its SHA-256, which is only known after writing."""
    fresh = folder / MODELS / "new"
    sha256 = cast(Any, save_model(fresh, model).origin).sha256
    target = beside(folder, sha256)
    shutil.rmtree(target, ignore_errors=True)
    durable.move(fresh, target)
    return model.at(target, sha256)


def load_detector(
    folder: str | Path, sha256: str | None = None, device: Literal["cpu", "auto"] | None = None
) -> Scorer:
    """Read a detector or an ensemble with its models. Nothing is executed; a model with a changed byte is rejected.

    Args:
        folder: written by `save_detector`, or a run folder: its calibrated detector is read, else the uncalibrated one;
            or written by `nightread export`, whose networks onnxruntime then runs on the CPU.
        sha256: SHA-256 of the requested detector; if given, the folder must hold exactly that one. Without it, a
            changed but valid `detector.json` is another detector, and is read.
        device: `auto` puts the models on a CUDA device if there is one; by default the detector's configuration
            decides.

    Raises:
        ArtefactError: a file or a model is missing, altered, of another format, or not the requested one.
        ConfigError: the detector is an export, and onnxruntime is not installed.
    """
    stored = read_detector(Path(folder), sha256)
    if is_export(stored):
        return _built(stored.spec, read_networks(stored))
    sealed = stored.read_models()
    distinct = {one.sha256: one for one in sealed}  # members may share a model
    models = {name: load_checked(one) for name, one in distinct.items()}
    detector = _built(stored.spec, [models[one.sha256] for one in sealed])
    put_on(device or detector.config.device, list(detector.methods))
    return detector


def _built(spec: dict[str, Any], models: list[Model]) -> Scorer:
    try:
        if "members" not in spec:
            return Detector(*models, **fields_of(spec))  # type: ignore[arg-type]  # one model: mypy lets a star fill every field
        members = [_member(item, model) for item, model in zip(spec["members"], models, strict=True)]
        return Ensemble(tuple(members), **fields_of(spec))
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{DETECTOR} does not fit this release ({type(error).__name__}). Calibrate or build it again."
        ) from None


def _member(item: dict[str, Any], model: Model) -> Member:
    return Member(
        detector=Detector(model, **fields_of(item["detector"])),
        origin=RunRef(str(item["run"]), str(item["sha256"])),
        score=Moments.model_validate(item["score"]),
        map=None if item["map"] is None else Moments.model_validate(item["map"]),
        weight=float(item["weight"]),
    )
