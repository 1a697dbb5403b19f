"""Changes of an index: entries added and removed by one process at a time, in one step that a power cut cannot halve.

A change writes new files, replaces the manifest, and then removes the files that it no longer names. So after a
deletion neither the entries nor the codes of a patient are left on the disk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from pipeline import durable
from pipeline.errors import ArtefactError, ConfigError
from pipeline.retrieval.config import IndexConfig
from pipeline.retrieval.segments import ROWS, Entries, hash_addresses, read_segment, write_arrays, write_segment
from pipeline.retrieval.stored_index import (
    MANIFEST,
    Part,
    config_of,
    first_manifest,
    open_index,
    read_manifest,
    read_parts,
    require_encoder,
    write_manifest,
)
from pipeline.retrieval.structure import Structure, in_pieces, must_train_again
from pipeline.retrieval.vector_index import VectorIndex

LOCK = ".lock"
PATIENCE_S = 3600.0  # a graph of a million vectors is built in minutes
PIECE = 16_384  # vectors added to a structure at once

Batch = tuple[Sequence[str], np.ndarray]  # addresses, and vectors float32 [n, D]


def update_index(
    folder: Path,
    encoder: Mapping[str, Any],
    config: IndexConfig,
    new: Iterable[Batch] = (),
    gone: Collection[str] = (),
) -> VectorIndex:
    """Remove entries from an index and add others to it, in one step; a missing index is made.

    Args:
        folder: of the index.
        encoder: JSON of the encoder that the vectors come from.
        config: how the index is searched; a change builds its structure again.
        new: addresses and vectors, read batch by batch; an address that the index has is left out.
        gone: addresses of the entries to remove; others are ignored.

    Raises:
        ArtefactError: another encoder made the index, a byte of it was changed, or another process keeps it busy.
        ConfigError: vectors of different widths, or that are not finite.
    """
    durable.make_folder(folder)
    try:
        with FileLock(folder / LOCK, timeout=PATIENCE_S):
            return _change(folder, encoder, config, new, gone)
    except Timeout:
        raise ArtefactError(
            f"Another process has been changing the index {folder.name} for an hour. Wait for it, or end it."
        ) from None


def remove_pixels(folder: Path, keys: Collection[str]) -> int:
    """Remove all entries of some pixels, whatever encoder made the index, and return their number.

    Args:
        folder: of the index.
        keys: pixel keys, the part of an address before the slash.

    Raises:
        ArtefactError: see `update_index`.
    """
    manifest = read_manifest(folder)
    encoder, config = manifest["encoder"], config_of(manifest, folder)
    index = open_index(folder, encoder)
    gone = [address for address in index.list_addresses() if address.partition("/")[0] in keys]
    if gone:
        update_index(folder, encoder, config, gone=gone)
    return len(gone)


def _change(
    folder: Path, encoder: Mapping[str, Any], config: IndexConfig, new: Iterable[Batch], gone: Collection[str]
) -> VectorIndex:
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else first_manifest(encoder, config)
    require_encoder(manifest, encoder, folder)
    index, parts = read_parts(folder, manifest)
    parts, removed = _without(folder, parts, gone)
    first_new = manifest["next_id"]
    parts, next_id, width = _append(folder, parts, new, first_new, index.width)
    structure = _structure(index, [entries for _, entries in parts], removed, first_new, config)
    changed = {
        **manifest,
        "config": config.model_dump(mode="json"),
        "width": width,
        "next_id": next_id,
        "segments": [record.to_json() for record, _ in parts],
        "structure": _write_structure(folder, structure),
    }
    write_manifest(folder, changed)
    _sweep(folder, changed)
    return read_parts(folder, changed)[0]


def _write_structure(folder: Path, structure: Structure | None) -> dict[str, Any] | None:
    if structure is None:
        return None
    return write_arrays(folder, "structure", {"structure": structure.to_bytes()}, structure.trained_on).to_json()


def _without(folder: Path, parts: Sequence[Part], gone: Collection[str]) -> tuple[list[Part], np.ndarray]:
    """Return the parts without some addresses, those that had any written again, and the ids that were removed."""
    names = np.array([one.encode("ascii") for one in gone], np.bytes_)
    left, removed = [], [np.zeros(0, np.int64)]
    for record, entries in parts:
        mask = np.isin(entries.addresses, names) if len(names) else np.zeros(len(entries), bool)
        if not mask.any():
            left.append((record, entries))
            continue
        removed.append(entries.ids[mask])
        if not mask.all():
            left.append(_written(folder, entries.rows(~mask)))
    return left, np.concatenate(removed)


def _append(
    folder: Path, parts: Sequence[Part], new: Iterable[Batch], next_id: int, width: int
) -> tuple[list[Part], int, int]:
    """Return the parts with new entries behind them, the next id, and the width; a part that is not full is filled."""
    done: list[Part] = list(parts)
    tail: Entries | None = None
    for addresses, vectors in new:
        batch = Entries.of(addresses, _checked(vectors, len(addresses), width))
        batch = _fresh(batch, [*(entries for _, entries in done), *([tail] if tail else [])]).numbered(next_id)
        if not len(batch):
            continue
        next_id, width = next_id + len(batch), batch.vectors.shape[1]
        if tail is None and done and len(done[-1][1]) < ROWS:
            tail = done.pop()[1]
        tail = batch if tail is None else Entries.join([tail, batch])
        while len(tail) >= ROWS:
            done.append(_written(folder, tail.rows(slice(0, ROWS))))
            tail = tail.rows(slice(ROWS, None))
    if tail is not None and len(tail):
        done.append(_written(folder, tail))
    return done, next_id, width


def _written(folder: Path, entries: Entries) -> Part:
    """Write a segment, and return it mapped, so that what was written leaves the memory."""
    record = write_segment(folder, entries)
    return record, read_segment(folder, record)


def _checked(vectors: np.ndarray, count: int, width: int) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) != count or (width and vectors.shape[1] != width):
        raise ConfigError(
            f"{count} addresses came with vectors of the shape {list(vectors.shape)}; each needs one of "
            f"{width or 'the same number of'} numbers. Encode them with the encoder of the index."
        )
    if not np.isfinite(vectors).all():
        raise ConfigError("A vector has NaN or infinity, and has no neighbours. Check the model that encodes.")
    return vectors


def _fresh(batch: Entries, others: Sequence[Entries]) -> Entries:
    """Return the entries of a batch whose addresses are in no other, each once."""
    mask = np.zeros(len(batch), bool)
    mask[np.unique(batch.addresses, return_index=True)[1]] = True
    hashes = hash_addresses(batch.addresses)
    for other in others:
        alike = np.isin(hash_addresses(other.addresses), hashes)  # a hundred times as fast as comparing texts
        if alike.any():
            mask &= ~np.isin(batch.addresses, other.addresses[alike])
    return batch.rows(mask)


def _structure(
    index: VectorIndex, parts: Sequence[Entries], removed: np.ndarray, first_new: int, config: IndexConfig
) -> Structure | None:
    """Return the structure of the changed entries: the old one brought up to date, or one trained on them."""
    count, old = sum(map(len, parts)), index.structure
    if config.kind == "exact" or count < config.exact_below:
        return None
    stale = old is None or index.config != config or must_train_again(old, count, config)
    if old is None or stale or (config.kind == "hnsw" and len(removed)):
        structure = Structure.train(_sample(parts, min(count, config.train_on)), count, config)
        structure.add(in_pieces(((part.ids, part.vectors) for part in parts), PIECE))
        return structure
    if len(removed):
        old.remove(removed)
    old.add(in_pieces(_from(parts, first_new), PIECE))
    return old


def _from(parts: Sequence[Entries], first_id: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ids and vectors of the entries from an id on."""
    for part in parts:
        start = int(np.searchsorted(part.ids, first_id))
        if start < len(part):
            yield part.ids[start:], part.vectors[start:]


def _sample(parts: Sequence[Entries], count: int) -> np.ndarray:
    """Return `count` vectors drawn from all parts, always the same for the same entries."""
    starts = np.cumsum([0, *map(len, parts)])
    rows = np.sort(np.random.default_rng(0).choice(int(starts[-1]), count, replace=False))
    places = np.split(rows, np.searchsorted(rows, starts[1:-1]))
    return np.concatenate([p.vectors[place - start] for p, place, start in zip(parts, places, starts, strict=False)])


def _sweep(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Remove the files that the manifest does not name."""
    items = [*manifest["segments"], *([manifest["structure"]] if manifest["structure"] else [])]
    names = {item["file"] for item in items}
    for file in folder.glob("*.safetensors"):
        if file.name not in names:
            file.unlink(missing_ok=True)
