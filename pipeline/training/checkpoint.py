"""Checkpoints, each a folder that is written aside and renamed, so that a kill leaves the old or the new one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load, save

from pipeline import durable
from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods.artefact import copy_tensors
from pipeline.training.state import Progress, TrainState

FORMAT = 1
NAME = re.compile(r"\d{12}-\d{3}")


def save_checkpoint(state: TrainState, folder: Path, keep: int) -> Path:
    """Write `folder/<images_seen>-<n>/` (state.safetensors, state.json) and remove all but the newest `keep`.

    Each checkpoint is a new folder, since a non-empty folder cannot be replaced atomically.
    """
    tensors = save({name: value.detach().cpu().contiguous().clone() for name, value in state.tensors().items()})
    target = _next_name(folder, state.images_seen)
    with durable.writing_folder(target) as beside:
        (beside / "state.safetensors").write_bytes(tensors)
        (beside / "state.json").write_bytes(_metadata(state, tensors))
    durable.sweep(folder, seconds=0)  # only one process writes here, so any leftovers come from a killed one
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def _next_name(folder: Path, images_seen: int) -> Path:
    """Return a name that sorts after all others: a checkpoint is never replaced, since that is not atomic."""
    same = [path.name for path in list_checkpoints(folder) if path.name.startswith(f"{images_seen:012d}-")]
    revision = int(same[-1].split("-")[1]) + 1 if same else 0
    return folder / f"{images_seen:012d}-{revision:03d}"


def resume(state: TrainState, folder: Path) -> bool:
    """Load the newest checkpoint of `folder` into `state`; return False if there is no checkpoint.

    Raises:
        ArtefactError: the checkpoint is damaged or has another format.
        ConfigError: the checkpoint belongs to another method or training configuration.
    """
    saved = list_checkpoints(folder)
    if not saved:
        return False
    metadata, tensors = _read(saved[-1])
    if metadata["fingerprint"] != state.fingerprint():
        differs = _difference(metadata["fingerprint"], state)
        raise ConfigError(
            f"{folder} holds a training with another configuration ({differs} differs). "
            "Choose another folder, or restore the configuration."
        )
    arrays = load(tensors)
    best = {name.removeprefix("best."): value for name, value in arrays.items() if name.startswith("best.")}
    device = state.accelerator.device
    state.best_weights = {name: value.to(device) for name, value in best.items()} or None
    copy_tensors(state.tensors(), arrays, f"checkpoint {saved[-1].name}")
    state.progress = Progress(**metadata["progress"])
    state.progress.resumed += 1
    return True


def _read(path: Path) -> tuple[dict, bytes]:
    try:
        metadata = json.loads((path / "state.json").read_text(encoding="utf-8"))
        tensors = (path / "state.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"Checkpoint {path.name} cannot be read ({type(error).__name__}). Remove its folder."
        ) from None
    if metadata.get("format") != FORMAT:
        raise ArtefactError(
            f"Checkpoint {path.name} has format {metadata.get('format')}; this version reads {FORMAT}. Remove its "
            "folder."
        )
    if hashlib.sha256(tensors).hexdigest() != metadata["sha256"]:
        raise ArtefactError(
            f"Checkpoint {path.name} was altered: its SHA-256 is not the recorded one. Remove its folder."
        )
    return metadata, tensors


def _metadata(state: TrainState, tensors: bytes) -> bytes:
    values = {
        "format": FORMAT,
        "sha256": hashlib.sha256(tensors).hexdigest(),
        "fingerprint": state.fingerprint(),
        "progress": asdict(state.progress),
    }
    return json.dumps(values, indent=1).encode()


def _difference(other: dict, state: TrainState) -> str:
    mine = state.fingerprint()
    parts = [
        f"{section}.{key}"
        for section in mine
        for key in mine[section]
        if other.get(section, {}).get(key) != mine[section][key]
    ]
    return ", ".join(parts) or "format"
