"""A folder whose every byte a manifest of SHA-256 vouches for; the SHA-256 of the manifest is the folder's identity."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.errors import ArtefactError
from pipeline.types import RunRef

FORMAT = 1  # raised by any change that an older release would read wrongly
SPEC, WEIGHTS, MANIFEST = "detector.json", "weights.safetensors", "manifest.json"


def reference(folder: Path, run: Path) -> RunRef:
    """Return the SHA-256 of the detector in `folder`, with `run` as the path.

    Raises:
        ArtefactError: there is no complete detector in the folder.
    """
    if missing := [name for name in (SPEC, WEIGHTS, MANIFEST) if not (folder / name).is_file()]:
        raise ArtefactError(f"The detector lacks {', '.join(missing)}. Train it again, or copy the folder whole.")
    return RunRef(str(run), file_sha256(folder / MANIFEST))


def read_sealed(folder: Path, sha256: str | None) -> dict[str, Any]:
    """Check every byte against the manifest, and the manifest against `sha256`; then read the specification.

    Raises:
        ArtefactError: something is missing, altered, damaged, of another format, or another artefact than asked for.
    """
    found = reference(folder, folder).sha256
    if sha256 is not None and found != sha256:
        raise ArtefactError(
            f"This detector has SHA-256 {found[:12]}…, and {sha256[:12]}… is asked for. It was altered or exchanged; "
            "take the one that is registered or named, or register or name this one."
        )
    _check_files(folder)
    spec = _json(folder / SPEC)
    if spec.get("format") != FORMAT:
        raise ArtefactError(
            f"This detector has format {spec.get('format')!r}; this release reads format {FORMAT}. Train it again, or "
            "use the release that made it."
        )
    return spec


def _check_files(folder: Path) -> None:
    hashes = _json(folder / MANIFEST).get("sha256")
    if not isinstance(hashes, dict) or set(hashes) != {SPEC, WEIGHTS}:
        raise ArtefactError(f"{MANIFEST} must list exactly {SPEC} and {WEIGHTS}. Train the detector again.")
    for name in (SPEC, WEIGHTS):
        if file_sha256(folder / name) != hashes[name]:
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


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
