"""A folder of weights and JSON, sealed by a manifest of SHA-256; the SHA-256 of that manifest is the folder's identity.

Nothing in the folder is ever executed: weights are safetensors, everything else is JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import durable
from pipeline.errors import ArtefactError

FORMAT = 2  # of models and detectors; raised by any change that another release would read wrongly
MODEL = "model"  # of a run's model, within the run folder
SPEC, WEIGHTS, MANIFEST = "model.json", "weights.safetensors", "manifest.json"


def seal(folder: Path, spec: dict[str, Any], save_weights: Callable[[Path], None]) -> str:
    """Write the three files, the manifest last: while it is missing, the folder holds nothing. Return its SHA-256."""
    (folder / MANIFEST).unlink(missing_ok=True)
    with durable.writing(folder / WEIGHTS) as part:
        save_weights(part)
        hashes = {WEIGHTS: file_sha256(part)}
    text = json.dumps({"format": FORMAT, **spec}, indent=2)
    durable.write(folder / SPEC, text)
    hashes[SPEC] = hashlib.sha256(text.encode()).hexdigest()
    durable.write(folder / MANIFEST, json.dumps({"format": FORMAT, "sha256": hashes}, indent=2, sort_keys=True))
    return file_sha256(folder / MANIFEST)


def sealed_sha256(folder: Path) -> str:
    """Return the identity of a sealed folder; its bytes are not checked (see `read_sealed`).

    Raises:
        ArtefactError: a file is missing.
    """
    if missing := [name for name in (SPEC, WEIGHTS, MANIFEST) if not (folder / name).is_file()]:
        raise ArtefactError(f"The model lacks {', '.join(missing)}. Train it again, or copy the folder whole.")
    return file_sha256(folder / MANIFEST)


def read_sealed(folder: Path, sha256: str | None = None) -> dict[str, Any]:
    """Check every byte against the manifest, and the manifest against `sha256`; return the specification.

    Raises:
        ArtefactError: a file is missing, altered, damaged, in another format, or not the model required.
    """
    identity = sealed_sha256(folder)
    if sha256 is not None and identity != sha256:
        raise ArtefactError(
            f"This model has SHA-256 {identity[:12]}…, but {sha256[:12]}… is required. It was altered or exchanged: "
            "restore the required one, or name this one."
        )
    _check_files(folder)
    spec = read_object(folder / SPEC)
    refuse_format(spec, "model")
    return spec


def refuse_format(spec: dict[str, Any], what: str) -> None:
    """Refuse a specification that another release wrote (ArtefactError); `what` names the artefact."""
    if spec.get("format") != FORMAT:
        raise ArtefactError(
            f"This {what} has format {spec.get('format')!r}; this release reads format {FORMAT}. Train it again, or "
            "use the release that made it."
        )


def _check_files(folder: Path) -> None:
    hashes = read_object(folder / MANIFEST).get("sha256")
    if not isinstance(hashes, dict) or set(hashes) != {SPEC, WEIGHTS}:
        raise ArtefactError(f"{MANIFEST} must list exactly {SPEC} and {WEIGHTS}. Train the model again.")
    for name in (SPEC, WEIGHTS):
        if file_sha256(folder / name) != hashes[name]:
            raise ArtefactError(f"{name} is not what {MANIFEST} says: a byte was changed. Restore it, or train again.")


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file (ArtefactError where it is missing, damaged or not an object)."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(
            f"{path.name} cannot be read ({type(error).__name__}). Restore it, or train again."
        ) from None
    if not isinstance(values, dict):
        raise ArtefactError(f"{path.name} holds a {type(values).__name__}; an object is needed. Train again.")
    return values


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
