"""Manifests for npz files in the MedMNIST format: `<split>_images` and `<split>_labels`, or `images` and `labels`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from pipeline.dicom.wrap.wrap_manifest import ManifestRow, RowRejection, checked_row
from pipeline.errors import ConfigError


def read_npz_rows(npz: Path, modality: str, normal: Sequence[int]) -> Iterator[ManifestRow | RowRejection]:
    """Yield one row per image with its official split; label values in `normal` mean normal, others abnormal.

    Raises:
        ConfigError: the file does not have this format, or no image has one of the labels in `normal`.
    """
    images = list(_images(npz))
    if not any(label in normal for _, _, _, label in images):
        present = sorted({label for _, _, _, label in images})
        sentence = (
            f"No image has one of the normal labels {list(normal)}; the file holds {present}. Choose among those."
        )
        raise ConfigError(sentence)
    for number, (split, member, index, label) in enumerate(images, start=2):
        label_name = "normal" if label in normal else "abnormal"
        values = {"file": f"{npz.name}::{member}[{index}]", "label": label_name, "modality": modality, "split": split}
        yield checked_row(number, values, modality)


def _images(npz: Path) -> Iterator[tuple[str, str, int, int]]:
    """Yield (split, member, index, label) of every image."""
    for split, member, labels in _members(npz):
        for index, label in enumerate(labels):
            yield split, member, index, int(label)


def _members(npz: Path) -> list[tuple[str, str, np.ndarray]]:
    """Return (split, member of the images, one label per image) of every split."""
    try:
        with np.load(npz, allow_pickle=False) as archive:
            names = [name for name in archive.files if name == "images" or name.endswith("_images")]
            members = [_member(archive, name) for name in names]
    except ConfigError:
        raise
    except Exception as error:  # NumPy and zipfile raise many types of error on damaged files
        raise ConfigError(
            f"The npz file cannot be used ({type(error).__name__}): it needs members `images` and `labels`, or "
            "`train_images` and `train_labels` and so on, with one whole number per image. Write a manifest instead."
        ) from None
    if not members:
        raise ConfigError("The npz file has no member `images` or `<split>_images`. Write a manifest for its images.")
    return members


def _member(archive: np.lib.npyio.NpzFile, name: str) -> tuple[str, str, np.ndarray]:
    """Return one split; labels that do not correspond one to one to its images are refused."""
    stem = name.removesuffix("images")
    labels, images = archive[f"{stem}labels"], _images_in(archive, name)
    if labels.ndim == 0 or not labels.size == len(labels) == images:
        raise ConfigError(
            f"The npz file has {images} images in `{name}` but labels of shape {labels.shape} in `{stem}labels`; one "
            "whole number per image is needed. Write a manifest for its images."
        )
    if labels.dtype.kind not in "biuf" or not np.all(np.mod(labels, 1) == 0):
        raise ConfigError(f"The labels in `{stem}labels` are not whole numbers. Write a manifest instead.")
    return stem.rstrip("_"), name, labels.reshape(-1)


def _images_in(archive: np.lib.npyio.NpzFile, name: str) -> int:
    """Return the length of a member's first axis, read from its header because the images may not fit into memory."""
    with cast(Any, archive.zip).open(f"{name}.npy") as stream:
        newer = np.lib.format.read_magic(stream) > (1, 0)
        shape = (np.lib.format.read_array_header_2_0 if newer else np.lib.format.read_array_header_1_0)(stream)[0]
    return shape[0] if shape else 0
