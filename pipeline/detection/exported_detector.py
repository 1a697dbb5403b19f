"""An exported detector: its networks in ONNX, and everything else of its score as it was, byte for byte.

    export.json                    SHA-256 of the detector and of each network, and how the export was checked
    detector.json                  the detector's own file: residual, aggregation, constants, calibration
    networks/<model>/model.json    the model's own file: method, normaliser, volumes
    networks/<model>/manifest.json its seal, which the detector names by SHA-256
    networks/<model>/network.onnx  in the place of the weights

So no threshold and no step of the preprocessing can change, and the exported detector keeps the identity of the
one that it was made of.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline import durable
from pipeline.data.images.normalise import Normaliser
from pipeline.data.images.volume import VolumeConfig
from pipeline.detection.detector_file import DETECTOR, DetectorFile, read_detector
from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods.onnx_network import ONNX_METHODS, OPSET, export_network
from pipeline.methods.stored_model import Model, load_checked, versions
from pipeline.sealed_folder import FORMAT, MANIFEST, SPEC, Sealed, hash_file, read_object, refuse_format

EXPORT, NETWORKS, NETWORK = "export.json", "networks", "network.onnx"
AGAIN = "Copy the export again, or repeat nightread export."


def write_export(detector: Path, folder: Path) -> None:
    """Write the detector of a folder as an export into `folder`, which exists and is empty; it is not checked yet.

    Raises:
        ArtefactError: the detector or one of its models is missing or altered.
        ConfigError: one of its methods cannot be exported, or it scores in bf16.
    """
    stored = read_detector(detector)
    _refuse_bf16(stored.spec)
    networks = {model.sha256: _write_network(model, folder) for model in stored.read_models()}
    shutil.copyfile(stored.folder / DETECTOR, folder / DETECTOR)
    facts = {
        "format": FORMAT,
        "versions": versions(),
        "opset": OPSET,
        "detector": stored.sha256,
        "networks": networks,
    }
    durable.write(folder / EXPORT, json.dumps(facts, indent=2))


def _refuse_bf16(spec: dict[str, Any]) -> None:
    parts = [spec, *(member["detector"] for member in spec.get("members", []))]
    if any(part["detection"]["precision"] == "bf16" for part in parts):
        raise ConfigError(
            "This detector scores in bf16, and a network is exported in fp32, so its scores would differ. Train or "
            "rescore the run with detection.precision=fp32."
        )


def _write_network(model: Sealed, folder: Path) -> dict[str, str]:
    place = _place(folder, model.sha256)
    place.mkdir(parents=True, exist_ok=True)
    for name in (SPEC, MANIFEST):
        shutil.copyfile(model.folder / name, place / name)
    answer = export_network(load_checked(model).method, place / NETWORK)
    return {"answer": answer, "sha256": hash_file(place / NETWORK)}


def _place(folder: Path, sha256: str) -> Path:
    return folder / NETWORKS / sha256[:16]


def add_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Add to what `export.json` says, such as how the export was checked."""
    durable.write(folder / EXPORT, json.dumps(read_object(folder / EXPORT) | facts, indent=2))


def is_export(stored: DetectorFile) -> bool:
    """Return whether the models of a detector are ONNX networks."""
    return (stored.folder / EXPORT).is_file()


def read_networks(stored: DetectorFile) -> list[Model]:
    """Return the exported models of a detector, in its order, after a check of their every byte.

    Raises:
        ArtefactError: a file is missing or altered, or belongs to another detector.
        ConfigError: onnxruntime is not installed.
    """
    facts = read_object(stored.folder / EXPORT)
    refuse_format(facts, "export")
    if facts.get("detector") != stored.sha256:
        raise ArtefactError(f"{DETECTOR} is not the one that was exported: its SHA-256 differs. {AGAIN}")
    names = [str(item["sha256"]) for item in stored.spec["models"]]
    distinct = {name: _read_network(stored.folder, name, facts) for name in dict.fromkeys(names)}
    return [distinct[name] for name in names]


def _read_network(folder: Path, sha256: str, facts: dict[str, Any]) -> Model:
    place = _place(folder, sha256)
    try:
        network = facts["networks"][sha256]
        expected = {MANIFEST: sha256, NETWORK: network["sha256"]}
        _refuse_altered(place, expected)
        _refuse_altered(place, {SPEC: read_object(place / MANIFEST)["sha256"][SPEC]})
        spec = read_object(place / SPEC)
        volumes = None if spec["volumes"] is None else VolumeConfig.model_validate(spec["volumes"])
        method = ONNX_METHODS[network["answer"]](spec["method"], place / NETWORK)
        return Model(method.eval(), Normaliser.from_json(spec["normaliser"]), volumes)
    except (KeyError, TypeError, ValidationError) as error:
        raise ArtefactError(f"{EXPORT} does not fit this release ({type(error).__name__}). {AGAIN}") from None


def _refuse_altered(place: Path, expected: dict[str, str]) -> None:
    for name, sha256 in expected.items():
        if not (place / name).is_file():
            raise ArtefactError(f"{NETWORKS}/{place.name}/{name} is missing. {AGAIN}")
        if hash_file(place / name) != sha256:
            raise ArtefactError(f"{NETWORKS}/{place.name}/{name} was altered: its SHA-256 differs. {AGAIN}")
