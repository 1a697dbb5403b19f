"""The file `detector.json`: its location, its content and its models. Imports no torch.

The SHA-256 of the file's bytes is the detector's identity. A model is beside the file (`models/`, if a detector
was saved with unsaved models, or bundled for somebody else), or in the folder that the file names, relative to the
detector's folder, so that a copied workspace uses its own models. In either place, it is read only if its SHA-256
is the one in the detector.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ArtefactError
from pipeline.sealed_folder import Sealed, beside, bundle_model, hash_file, read_named, read_object, refuse_format

DETECTOR = "detector.json"
CALIBRATED, UNCALIBRATED = "detector", "uncalibrated"  # folders of a run, in search order
FIELDS = ("models", "route", "seed", "detection", "two_sided", "calibration")


@dataclass(frozen=True, slots=True)
class DetectorFile:
    """The content of a `detector.json`.

    Attributes:
        folder: its place.
        sha256: the detector's identity.
        spec: its content.
    """

    folder: Path
    sha256: str
    spec: dict[str, Any]

    def read_models(self) -> list[Sealed]:
        """Return the models that the detector names, in its order, after a check of their every byte.

        Raises:
            ArtefactError: a model is missing, altered, of another format, or not named correctly.
        """
        items = self.spec["models"]
        if not isinstance(items, list):
            raise ArtefactError(f"{DETECTOR} does not list its models. Calibrate the run again.")
        keys = [json.dumps(item) for item in items]
        distinct = dict(zip(keys, items, strict=True))  # members may share a model
        read = {key: read_named(item, self.folder) for key, item in distinct.items()}
        return [read[key] for key in keys]


def read_detector(folder: Path, sha256: str | None = None) -> DetectorFile:
    """Read `detector.json` of a folder, or of a run folder; its models are not read.

    A run folder may hold `detector/` and `uncalibrated/`: the one with this SHA-256 is read, else the calibrated one.

    Raises:
        ArtefactError: the file is missing, damaged, of another format, incomplete, or does not have this `sha256`.
    """
    places = [p for p in (folder, folder / CALIBRATED, folder / UNCALIBRATED) if (p / DETECTOR).is_file()]
    if not places:
        why = f"lacks {DETECTOR}" if folder.is_dir() else "is not a folder"
        raise ArtefactError(
            f"{folder} {why}. Name a run folder, or train and calibrate a run with nightread train CONFIG"
        )
    identities = {place: hash_file(place / DETECTOR) for place in places}
    place = next((place for place in places if identities[place] == sha256), places[0])
    if sha256 is not None and identities[place] != sha256:
        raise ArtefactError(
            f"This detector has SHA-256 {identities[place][:12]}…, but {sha256[:12]}… was requested. It was altered or "
            "replaced: restore the requested one, or register this one."
        )
    spec = read_object(place / DETECTOR)
    refuse_format(spec, "detector")
    if missing := [name for name in FIELDS if name not in spec]:
        raise ArtefactError(f"{DETECTOR} lacks {', '.join(missing)}. Calibrate the run again.")
    return DetectorFile(place, identities[place], spec)


def check_detector(folder: Path, sha256: str | None = None) -> str:
    """Return the SHA-256 of a detector after checking every byte of it and of its models; nothing is built.

    Raises:
        ArtefactError: a file or a model is missing, altered, of another format, or not the requested one.
    """
    detector = read_detector(folder, sha256)
    detector.read_models()
    return detector.sha256


def bundle_detector(folder: Path, target: Path) -> None:
    """Copy a detector, byte for byte, with its models and theirs, so that `target` needs no other folder.

    Raises:
        ArtefactError: the detector or one of its models is missing or altered.
    """
    detector = read_detector(folder)
    for model in detector.read_models():
        bundle_model(model, beside(target, model.sha256))
    shutil.copyfile(detector.folder / DETECTOR, target / DETECTOR)
