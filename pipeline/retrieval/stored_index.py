"""Indices on disk, opened with the encoder that made them.

<folder>/
    index.json                   the manifest: encoder and its SHA-256, configuration, files with their SHA-256
    segment-<name>.safetensors   entries (`pipeline.retrieval.segments`)
    structure-<name>.safetensors the structure by which they are searched, if there is one
    .lock                        held while the index is changed (`pipeline.retrieval.change_index`)

Files never change, and the manifest is replaced in one step, so a reader has one version whole. Addresses are content
hashes of pixels, never pseudonyms: who a patient is, and whether they are still in the catalogue, the catalogue says at
every search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pipeline import durable
from pipeline.errors import ArtefactError
from pipeline.retrieval.config import IndexConfig
from pipeline.retrieval.segments import AGAIN, Entries, FileRecord, check_file, map_arrays, read_segment
from pipeline.retrieval.structure import Structure
from pipeline.retrieval.vector_index import VectorIndex
from pipeline.sealed_folder import hash_file, read_object

FORMAT = 1
MANIFEST = "index.json"
ATTEMPTS = 5  # a reader that a writer overtook reads again

Part = tuple[FileRecord, Entries]


def sha256_of(encoder: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an encoder: that of the JSON that says what it is."""
    return hashlib.sha256(json.dumps(encoder, sort_keys=True).encode()).hexdigest()


def open_index(folder: Path, encoder: Mapping[str, Any]) -> VectorIndex:
    """Open an index with the encoder that queries will come from.

    Raises:
        ArtefactError: the index is missing, another encoder made it, or a byte of it was changed.
    """
    for _ in range(ATTEMPTS):
        manifest = read_manifest(folder)
        require_encoder(manifest, encoder, folder)
        try:
            return read_parts(folder, manifest)[0]
        except FileNotFoundError:
            continue
    raise ArtefactError(f"A file that the index {folder.name} names is missing. {AGAIN}")


def version_of(folder: Path) -> str:
    """Return what changes whenever the index does; "" without an index."""
    try:
        return hash_file(folder / MANIFEST)
    except OSError:
        return ""


def first_manifest(encoder: Mapping[str, Any], config: IndexConfig) -> dict[str, Any]:
    """Return the manifest of an index without entries."""
    return {
        "format": FORMAT,
        "encoder": dict(encoder),
        "encoder_sha256": sha256_of(encoder),
        "config": config.model_dump(mode="json"),
        "width": 0,
        "next_id": 0,
        "segments": [],
        "structure": None,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest (ArtefactError where it is missing, damaged or of another release)."""
    if not (folder / MANIFEST).is_file():
        raise ArtefactError(f"{folder.name} is not an index. Make it with nightread generate retrieve CONFIG.")
    manifest = read_object(folder / MANIFEST)
    if manifest.get("format") != FORMAT or manifest.get("encoder_sha256") != sha256_of(manifest.get("encoder", {})):
        raise ArtefactError(f"The manifest of the index {folder.name} is damaged or of another release. {AGAIN}")
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the manifest: from now on the index is what it says."""
    durable.write(folder / MANIFEST, _text(manifest))


def require_encoder(manifest: Mapping[str, Any], encoder: Mapping[str, Any], folder: Path) -> None:
    """Refuse an index of another encoder (ArtefactError), since distances between vectors of two mean nothing."""
    ours, theirs = sha256_of(encoder), manifest["encoder_sha256"]
    if ours != theirs:
        made = manifest["encoder"]
        raise ArtefactError(
            f"The index {folder.name} was made by the encoder {made.get('kind')} with SHA-256 {theirs[:12]}…, and the "
            f"encoder {encoder.get('kind')} has SHA-256 {ours[:12]}…; vectors of two encoders cannot be compared. "
            "Open it with the model that made it, or make another index with nightread generate retrieve CONFIG."
        )


def config_of(manifest: Mapping[str, Any], folder: Path) -> IndexConfig:
    """Return the configuration of an index (ArtefactError where it is damaged)."""
    try:
        return IndexConfig.model_validate(manifest["config"])
    except (KeyError, ValidationError):
        raise ArtefactError(f"The manifest of the index {folder.name} is damaged. {AGAIN}") from None


def read_parts(folder: Path, manifest: Mapping[str, Any]) -> tuple[VectorIndex, list[Part]]:
    """Return the index that a manifest names, and its segments with their records.

    Raises:
        FileNotFoundError: a file was removed since the manifest was read.
        ArtefactError: a byte was changed.
    """
    records = [FileRecord(**item) for item in manifest["segments"]]
    parts = [(record, read_segment(folder, record)) for record in records]
    width, item = int(manifest["width"]), manifest["structure"]
    structure = None if item is None else _read_structure(folder, FileRecord(**item), width)
    index = VectorIndex(
        encoder=manifest["encoder"],
        encoder_sha256=manifest["encoder_sha256"],
        config=config_of(manifest, folder),
        width=width,
        parts=tuple(entries for _, entries in parts),
        structure=structure,
        version=hashlib.sha256(_text(manifest).encode()).hexdigest(),
    )
    return index, parts


def _read_structure(folder: Path, record: FileRecord, width: int) -> Structure:
    check_file(folder / record.file, record.sha256)  # faiss trusts the bytes that it reads
    return Structure.from_bytes(np.array(map_arrays(folder / record.file)["structure"]), width, record.count)


def _text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2)
