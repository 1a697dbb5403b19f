"""Manifests for npz files of the MedMNIST kind: `<split>_images` and `<split>_labels`, or `images` and `labels`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.dicom.wrap_manifest import ManifestRow, RowRejection, checked_row
from pipeline.errors import ConfigError

COLUMNS = ("file", "label", "modality", "body_part", "split")


def manifest_from_npz(
    npz: Path,
    manifest: Path,
    *,
    modality: str = "OT",
    normal: Sequence[int] = (0,),
    only: Sequence[int] | None = None,
    body_part: str = "",
) -> int:
    """Write a manifest with one row an image, official splits kept, and return the number of rows.

    Args:
        npz: the data; the manifest addresses it by its absolute path, unless both lie in one folder.
        normal: label values that mean normal; all others mean abnormal.
        only: label values to keep; None keeps all.

    Raises:
        ConfigError: no such file, or its members are not of this kind.
    """
    name = npz.name if npz.absolute().parent == manifest.absolute().parent else str(npz.absolute())
    count = 0
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for split, member, index, label in _images(npz):
            if only is None or label in only:
                said = "normal" if label in normal else "abnormal"
                writer.writerow((f"{name}::{member}[{index}]", said, modality, body_part, split))
                count += 1
    return count


def rows_from_npz(npz: Path, modality: str) -> Iterator[ManifestRow | RowRejection]:
    """Yield the rows of the manifest that `manifest_from_npz` would write with label 0 as normal."""
    for number, (split, member, index, label) in enumerate(_images(npz), start=2):
        said = "normal" if label == 0 else "abnormal"
        values = {"file": f"{npz.name}::{member}[{index}]", "label": said, "modality": modality, "split": split}
        yield checked_row(number, values, modality)


def _images(npz: Path) -> Iterator[tuple[str, str, int, int]]:
    """Yield (split, member, index, label) of every image."""
    for split, member, labels in _members(npz):
        for index, label in enumerate(labels):
            yield split, member, index, int(label)


def _members(npz: Path) -> list[tuple[str, str, np.ndarray]]:
    try:
        with np.load(npz, allow_pickle=False) as archive:
            names = [name for name in archive.files if name == "images" or name.endswith("_images")]
            found = [(name.removesuffix("images").rstrip("_"), name, name.removesuffix("images")) for name in names]
            members = [(split, name, archive[f"{stem}labels"].reshape(-1)) for split, name, stem in found]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ConfigError(
            f"The npz file cannot be used ({type(error).__name__}): it needs members `images` and `labels`, or "
            "`train_images` and `train_labels` and so on, with one whole number an image."
        ) from None
    if not members:
        raise ConfigError("The npz file has no member `images` or `<split>_images`. Write a manifest for it.")
    return members
