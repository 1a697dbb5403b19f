"""Spoilt images for tests: some of the normal images of an npz file, each turned, cut, or with a foreign patch.

They show whether a detector notices what is plainly wrong with an image of the right kind. They are for evaluation:
nothing is trained on them, and their labels say what was done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import durable
from pipeline.errors import ConfigError

KINDS = ("turned", "cut", "foreign patch")  # labels 1, 2 and 3 of the file that is written; 0 is normal
PATCH = (3 / 16, 3 / 8)  # edge of a foreign patch / shorter edge of the image


@dataclass(frozen=True, slots=True)
class SpoilReport:
    """Numbers of images in the file that was written: `normal` ones as they were, and `spoilt` ones by kind."""

    out: Path
    normal: int
    spoilt: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"out": str(self.out), "normal": self.normal, "spoilt": self.spoilt}

    def sentence(self) -> str:
        """Return the report in words."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.spoilt.items())
        return (
            f"{self.normal} normal images as they were (label 0) and {sum(self.spoilt.values())} spoilt ones ({kinds}: "
            f"labels 1 to {len(KINDS)}). Next: nightread wrap {self.out} --out FOLDER"
        )


def spoil_npz(source: Path, out: Path, normal: Sequence[int] = (0,), share: float = 0.3, seed: int = 0) -> SpoilReport:
    """Write an npz of the normal images of another, a share of them spoilt; the same seed writes the same images.

    Args:
        source: npz in the MedMNIST format; its sets (`train_images`, ...) are put together.
        out: the file to write, with `images` and `labels`.
        normal: labels that mean normal. Foreign patches come from images of other labels, which are left out.
        share: of the normal images that are spoilt, above 0 and below 1.
        seed: of the choice of images, and of what is done to each.

    Raises:
        ConfigError: the file or the share cannot be used, or normal or foreign images are missing.
    """
    if not 0 < share < 1:
        raise ConfigError(f"The share of images to spoil is {share}; it must be above 0 and below 1, for example 0.3.")
    images, labels = _read(source)
    own = np.isin(labels, normal)
    if not own.any() or own.all():
        raise ConfigError(
            f"Of {len(labels)} images {int(own.sum())} have one of the normal labels {list(normal)}; normal images and "
            f"others, for foreign patches, are needed. Choose among the file's labels: {np.unique(labels).tolist()}."
        )
    order = np.random.default_rng(seed).permutation(np.flatnonzero(own))
    count = max(round(share * len(order)), 1)
    spoilt = list(spoil(images[order[:count]], images[~own], seed))
    kinds = 1 + np.arange(count) % len(KINDS)
    with durable.writing(out) as part, part.open("wb") as stream:
        np.savez(
            stream,
            images=np.stack([*images[order[count:]], *spoilt]),
            labels=np.concatenate([np.zeros(len(order) - count, np.int64), kinds]),
        )
    return SpoilReport(out, len(order) - count, {kind: int((kinds == n).sum()) for n, kind in enumerate(KINDS, 1)})


def spoil(images: np.ndarray, foreign: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yield each image turned, cut or patched, in this order again and again.

    Args:
        images: [N, H, W] or [N, H, W, C].
        foreign: images of the same shape, of which patches are taken.
        seed: of all draws; image i is spoilt in the same way however many follow.
    """
    for number, image in enumerate(images):
        rng, kind = np.random.default_rng((seed, number)), KINDS[number % len(KINDS)]
        if kind == "turned":
            yield turn(image, rng)
        elif kind == "cut":
            yield cut(image, rng)
        else:
            yield patch(image, foreign[rng.integers(len(foreign))], rng)


def turn(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image turned by 90, 180 or 270 degrees; by 180 if it is not square."""
    square = image.shape[0] == image.shape[1]
    return np.rot90(image, int(rng.integers(1, 4)) if square else 2).copy()


def cut(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image with one half or one quarter as dark as its darkest pixel."""
    result, (rows, columns) = image.copy(), image.shape[:2]
    halves = ((0, rows, 0, columns // 2), (rows // 2, rows, 0, columns))
    y, x = (int(side) for side in rng.integers(0, 2, 2))
    quarter = (y * rows // 2, (y + 1) * rows // 2, x * columns // 2, (x + 1) * columns // 2)
    top, bottom, left, right = halves[y] if rng.random() < 0.5 else quarter
    result[top:bottom, left:right] = image.min()
    return result


def patch(image: np.ndarray, foreign: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image with a square of another image, from anywhere in it, anywhere."""
    result, (rows, columns) = image.copy(), image.shape[:2]
    edge = max(int(rng.uniform(*PATCH) * min(rows, columns)), 1)
    to_y, from_y = (int(start) for start in rng.integers(0, rows - edge + 1, 2))
    to_x, from_x = (int(start) for start in rng.integers(0, columns - edge + 1, 2))
    result[to_y : to_y + edge, to_x : to_x + edge] = foreign[from_y : from_y + edge, from_x : from_x + edge]
    return result


def _read(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images and labels of all sets of an npz."""
    try:
        with np.load(source, allow_pickle=False) as archive:
            names = [name for name in archive.files if name == "images" or name.endswith("_images")]
            images = np.concatenate([archive[name] for name in names])
            labels = np.concatenate([archive[f"{name.removesuffix('images')}labels"].reshape(-1) for name in names])
    except Exception as error:  # NumPy and zipfile raise many types of error on damaged files
        raise ConfigError(
            f"{source.name} cannot be used ({type(error).__name__}): it needs members `images` and `labels`, or "
            "`train_images` and `train_labels` and so on, all images of one size. Give an npz in this format."
        ) from None
    if images.ndim not in (3, 4) or len(images) != len(labels):
        raise ConfigError(
            f"{source.name} has images of shape {images.shape} and {len(labels)} labels; images [N, H, W] or "
            "[N, H, W, C] and one label each are needed. Give an npz in this format."
        )
    return images, labels
