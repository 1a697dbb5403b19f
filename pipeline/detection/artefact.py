"""A detector as three files: weights as safetensors, everything else as JSON, and a manifest of their SHA-256.

Nothing in the folder is ever executed. The SHA-256 of the manifest is the detector's identity.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pipeline
from pipeline import durable
from pipeline.errors import ArtefactError
from pipeline.methods.artefact import fill_weights, load_weights, method_from_spec, save_weights
from pipeline.methods.base import Method
from pipeline.sealed_folder import FORMAT, MANIFEST, SPEC, WEIGHTS, file_sha256, read_sealed, reference
from pipeline.types import RunRef

__all__ = ["read_method", "read_sealed", "reference", "write_artefact"]

FIELDS = ("method", "normaliser", "detection", "route", "seed", "calibration")


def write_artefact(folder: Path, spec: dict[str, Any], method: nn.Module) -> RunRef:
    """Write the three files, `detector.json` last: while it is missing, the folder holds no detector."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC).unlink(missing_ok=True)
    with durable.writing(folder / WEIGHTS) as part:
        save_weights(method, part)
        hashes = {WEIGHTS: file_sha256(part)}
    text = json.dumps({"format": FORMAT, "versions": _versions(), **spec}, indent=2)
    hashes[SPEC] = hashlib.sha256(text.encode()).hexdigest()
    durable.write(folder / MANIFEST, json.dumps({"format": FORMAT, "sha256": hashes}, indent=2, sort_keys=True))
    durable.write(folder / SPEC, text)
    return reference(folder, folder)


def read_method(spec: dict[str, Any], folder: Path) -> Method:
    """Return the method of a folder that `read_sealed` checked and gave `spec` of, with its weights.

    Raises:
        ArtefactError: the specification lacks a field, or the weights are not the method's.
    """
    require(spec, FIELDS)
    return load_weights(method_from_spec(spec["method"]), folder / WEIGHTS)


def require(spec: dict[str, Any], fields: Sequence[str]) -> None:
    """Refuse a specification that lacks one of `fields` (ArtefactError)."""
    if missing := [name for name in fields if name not in spec]:
        raise ArtefactError(f"{SPEC} lacks {', '.join(missing)}. Train the detector again.")


def read_weights(module: nn.Module, folder: Path, what: str) -> None:
    """Read the weights of a folder that `read_sealed` checked (ArtefactError where they are not the module's)."""
    fill_weights(module, folder / WEIGHTS, what)


def _versions() -> dict[str, str]:
    return {"nightread": pipeline.__version__, "torch": torch.__version__, "python": platform.python_version()}
