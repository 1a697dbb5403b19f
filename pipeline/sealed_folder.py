"""A folder of weights and JSON, sealed by a manifest of SHA-256; the SHA-256 of that manifest is the folder's identity.

Nothing in the folder is ever executed: weights are safetensors, everything else is JSON. A model that holds another
model (a latent model its codec) names it and does not contain it, as a detector names its models: by SHA-256, and by a
folder relative to its own, so that a copied workspace uses its own models.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline import durable
from pipeline.errors import ArtefactError

FORMAT = 2  # of models and detectors; raised by any change that another release would read wrongly
MODEL = "model"  # of a run's model, within the run folder
MODELS = "models"  # folder beside a detector or model, for models that were saved or bundled with it
SPEC, WEIGHTS, MANIFEST = "model.json", "weights.safetensors", "manifest.json"


def seal(folder: Path, spec: dict[str, Any], save_weights: Callable[[Path], None]) -> str:
    """Write the three files, the manifest last: while it is missing, the folder holds nothing. Return its SHA-256."""
    (folder / MANIFEST).unlink(missing_ok=True)
    with durable.writing(folder / WEIGHTS) as part:
        save_weights(part)
        hashes = {WEIGHTS: hash_file(part)}
    text = json.dumps({"format": FORMAT, **spec}, indent=2)
    durable.write(folder / SPEC, text)
    hashes[SPEC] = hashlib.sha256(text.encode()).hexdigest()
    durable.write(folder / MANIFEST, json.dumps({"format": FORMAT, "sha256": hashes}, indent=2, sort_keys=True))
    return hash_file(folder / MANIFEST)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed folder after a check of its every byte.

    Attributes:
        folder: its place.
        sha256: its identity.
        spec: the content of its JSON.
        components: the models that it names, checked as well, by the component's name.
    """

    folder: Path
    sha256: str
    spec: dict[str, Any]
    components: dict[str, Sealed]


def read_sealed(folder: Path, sha256: str | None = None) -> Sealed:
    """Check every byte against the manifest, and the manifest against `sha256`; and so for the models that it names.

    Raises:
        ArtefactError: a file or a named model is missing, altered, damaged, in another format, or not the one required.
    """
    if missing := [name for name in (SPEC, WEIGHTS, MANIFEST) if not (folder / name).is_file()]:
        lacks = f"lacks {', '.join(missing)}" if folder.is_dir() else "is not a folder"
        raise ArtefactError(
            f"{folder} {lacks}, so it is not a model. Name a run folder; if it is one, train it again or copy it whole."
        )
    identity = hash_file(folder / MANIFEST)
    if sha256 is not None and identity != sha256:
        raise ArtefactError(
            f"This model has SHA-256 {identity[:12]}…, but {sha256[:12]}… is required. It was altered or exchanged: "
            "restore the required one, or name this one."
        )
    _check_files(folder)
    spec = read_object(folder / SPEC)
    refuse_format(spec, "model")
    return Sealed(folder, identity, spec, _read_components(spec, folder))


def name_model(place: Path, sha256: str, folder: Path) -> dict[str, str]:
    """Return JSON that names the model in `place` for a file in `folder`."""
    return {"sha256": sha256, "folder": Path(os.path.relpath(place.resolve(), folder.resolve())).as_posix()}


def read_named(item: Any, folder: Path) -> Sealed:
    """Return the model that a file in `folder` names, after a check of its every byte.

    Raises:
        ArtefactError: the model is missing, altered or another one, or it is not named correctly.
    """
    try:
        sha256, hint = str(item["sha256"]), PurePosixPath(item["folder"])
    except (KeyError, TypeError):
        raise ArtefactError(
            "A model is not named by `sha256` and `folder`. Calibrate or train the run again."
        ) from None
    if hint.is_absolute():
        raise ArtefactError(
            f"The model {sha256[:12]}… is named by an absolute path, but its folder must be relative to the file that "
            "names it. Calibrate or train the run again."
        )
    for place in (beside(folder, sha256), folder / hint):
        if (place / MANIFEST).is_file():
            return read_sealed(place, sha256)
    raise ArtefactError(
        f"The model {sha256[:12]}… is missing: it is neither in {MODELS}/ nor in {hint}, relative to the folder that "
        "names it. Restore that run's model, or train it again."
    )


def _read_components(spec: dict[str, Any], folder: Path) -> dict[str, Sealed]:
    items = spec.get(MODELS, {})
    if not isinstance(items, dict):
        raise ArtefactError(f"`{MODELS}` in {SPEC} is a {type(items).__name__}, not an object. Train the model again.")
    return {name: read_named(item, folder) for name, item in items.items()}


def beside(folder: Path, sha256: str) -> Path:
    """Return the folder of a model that was saved or bundled with the detector or model in `folder`."""
    return folder / MODELS / sha256[:16]


def bundle_model(model: Sealed, target: Path) -> None:
    """Copy a model, byte for byte, with the models that it names, so that `target` needs no other folder."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, SPEC, MANIFEST):
        shutil.copyfile(model.folder / name, target / name)
    for component in model.components.values():
        bundle_model(component, beside(target, component.sha256))


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
        if hash_file(folder / name) != hashes[name]:
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


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
