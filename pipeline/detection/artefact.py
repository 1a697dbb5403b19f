"""A detector as three files: weights as safetensors, everything else as JSON, and a manifest of their SHA-256.

Nothing in the folder is ever executed. The SHA-256 of the manifest is the detector's identity.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

import pipeline
from pipeline.errors import ArtefactError
from pipeline.methods.artefact import load_weights, method_from_spec, save_weights
from pipeline.methods.base import Method
from pipeline.types import RunRef

FORMAT = 1  # raised by any change that an older release would read wrongly
SPEC, WEIGHTS, MANIFEST = "detector.json", "weights.safetensors", "manifest.json"
FIELDS = ("method", "normaliser", "detection", "route", "seed", "calibration")


def write_artefact(folder: Path, spec: dict[str, Any], method: Method) -> RunRef:
    """Write the three files, `detector.json` last: while it is missing, the folder holds no detector."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC).unlink(missing_ok=True)
    temporary = folder / f".{WEIGHTS}.part"
    save_weights(method, temporary)
    hashes = {WEIGHTS: _sha256(temporary)}
    temporary.replace(folder / WEIGHTS)
    text = json.dumps({"format": FORMAT, "versions": _versions(), **spec}, indent=2)
    hashes[SPEC] = hashlib.sha256(text.encode()).hexdigest()
    _write(folder / MANIFEST, json.dumps({"format": FORMAT, "sha256": hashes}, indent=2, sort_keys=True))
    _write(folder / SPEC, text)
    return reference(folder, folder)


def reference(folder: Path, run: Path) -> RunRef:
    """Return the SHA-256 of the detector in `folder`, with `run` as the path.

    Raises:
        ArtefactError: there is no complete detector in the folder.
    """
    if missing := [name for name in (SPEC, WEIGHTS, MANIFEST) if not (folder / name).is_file()]:
        raise ArtefactError(f"The detector lacks {', '.join(missing)}. Train it again, or copy the folder whole.")
    return RunRef(str(run), _sha256(folder / MANIFEST))


def read_artefact(folder: Path, sha256: str | None) -> tuple[dict[str, Any], Method]:
    """Check every byte against the manifest, and the manifest against `sha256`; then read specification and weights.

    Raises:
        ArtefactError: something is missing, altered, damaged, of another format, or another artefact than asked for.
    """
    found = reference(folder, folder).sha256
    if sha256 is not None and found != sha256:
        raise ArtefactError(
            f"This detector has SHA-256 {found[:12]}…, and {sha256[:12]}… is registered. It was altered or exchanged; "
            "take the registered one, or register this one."
        )
    _check_files(folder)
    spec = _json(folder / SPEC)
    if spec.get("format") != FORMAT:
        raise ArtefactError(
            f"This detector has format {spec.get('format')!r}; this release reads format {FORMAT}. Train it again, or "
            "use the release that made it."
        )
    if missing := [name for name in FIELDS if name not in spec]:
        raise ArtefactError(f"{SPEC} lacks {', '.join(missing)}. Train the detector again.")
    return spec, load_weights(method_from_spec(spec["method"]), folder / WEIGHTS)


def _check_files(folder: Path) -> None:
    hashes = _json(folder / MANIFEST).get("sha256")
    if not isinstance(hashes, dict) or set(hashes) != {SPEC, WEIGHTS}:
        raise ArtefactError(f"{MANIFEST} must list exactly {SPEC} and {WEIGHTS}. Train the detector again.")
    for name in (SPEC, WEIGHTS):
        if _sha256(folder / name) != hashes[name]:
            raise ArtefactError(f"{name} is not what {MANIFEST} says: a byte was changed. Restore it, or train again.")


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(
            f"{path.name} cannot be read ({type(error).__name__}). Restore it, or train again."
        ) from None
    if not isinstance(values, dict):
        raise ArtefactError(f"{path.name} holds a {type(values).__name__}; an object is needed. Train again.")
    return values


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(target: Path, text: str) -> None:
    temporary = target.with_name(f".{target.name}.part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())
    temporary.replace(target)


def _versions() -> dict[str, str]:
    return {"nightread": pipeline.__version__, "torch": torch.__version__, "python": platform.python_version()}
