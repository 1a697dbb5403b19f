"""The file `detector.json`: its location, its content and its models. Imports no torch.

The SHA-256 of the file's bytes is the detector's identity. A model is beside the file (`models/`, if a detector
was saved with unsaved models, or bundled for somebody else), or in the folder that the file names, relative to the
detector's folder, so that a copied workspace uses its own models. In either place, it is read only if its SHA-256
is the one in the detector.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline.errors import ArtefactError
from pipeline.sealed_folder import bundle_model, file_sha256, find_model, read_object, read_sealed, refuse_format

DETECTOR = "detector.json"
CALIBRATED, UNCALIBRATED = "detector", "uncalibrated"  # folders of a run, in search order
FIELDS = ("models", "route", "seed", "detection", "two_sided", "calibration")


def detector_folder(folder: Path, sha256: str | None = None) -> Path:
    """Return the folder of `detector.json`: `folder`, or in a run folder `detector/` or `uncalibrated/`.

    If both exist, return the one with this SHA-256, else the calibrated one.
    """
    places = [p for p in (folder, folder / CALIBRATED, folder / UNCALIBRATED) if (p / DETECTOR).is_file()]
    named = [place for place in places if file_sha256(place / DETECTOR) == sha256]
    return (named or places or [folder])[0]


def read_detector(folder: Path, sha256: str | None = None) -> dict[str, Any]:
    """Return the content of `detector.json`.

    Raises:
        ArtefactError: the file is missing, damaged, of another format, incomplete, or does not have this `sha256`.
    """
    if not (folder / DETECTOR).is_file():
        raise ArtefactError(f"The folder lacks {DETECTOR}. Train and calibrate the run with nightread train CONFIG")
    identity = file_sha256(folder / DETECTOR)
    if sha256 is not None and identity != sha256:
        raise ArtefactError(
            f"This detector has SHA-256 {identity[:12]}…, but {sha256[:12]}… was requested. It was altered or "
            "replaced: restore the requested one, or register this one."
        )
    spec = read_object(folder / DETECTOR)
    refuse_format(spec, "detector")
    if missing := [name for name in FIELDS if name not in spec]:
        raise ArtefactError(f"{DETECTOR} lacks {', '.join(missing)}. Calibrate the run again.")
    return spec


def find_models(spec: dict[str, Any], folder: Path) -> list[tuple[str, Path]]:
    """Return the SHA-256 and the folder of each model of a detector.

    Raises:
        ArtefactError: a model is missing, or its path is absolute.
    """
    if not isinstance(spec["models"], list):
        raise ArtefactError(f"{DETECTOR} does not list its models. Calibrate the run again.")
    return [find_model(item, folder) for item in spec["models"]]


def check_detector(folder: Path, sha256: str | None = None) -> str:
    """Return the SHA-256 of a detector after checking every byte of it and of its models; nothing is built.

    Raises:
        ArtefactError: a file or a model is missing, altered, of another format, or not the requested one.
    """
    place = detector_folder(folder, sha256)
    for name, where in find_models(read_detector(place, sha256), place):
        read_sealed(where, name)
    return file_sha256(place / DETECTOR)


def bundle_detector(folder: Path, target: Path) -> None:
    """Copy a detector, byte for byte, with its models and theirs, so that `target` needs no other folder.

    Raises:
        ArtefactError: the detector or one of its models is missing or altered.
    """
    place = detector_folder(folder)
    check_detector(place)
    for name, where in find_models(read_detector(place), place):
        bundle_model(where, name, target)
    shutil.copyfile(place / DETECTOR, target / DETECTOR)
