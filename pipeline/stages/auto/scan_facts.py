"""Facts about a route's scans on which its detector is chosen: who is normal, and what the normal images look like.

Labels decide who is normal, as for every training; no label of disease is read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from pipeline.data.images.letterbox import Letterbox
from pipeline.data.images.load_slice import FrameStore, load_plane
from pipeline.data.sets.selection import Selection
from pipeline.errors import CatalogueError, EmptySelection, Rejected
from pipeline.types import SliceRef

LOOKED_AT = 96  # normal images whose pixels are measured
GRID = 32  # they are measured at this size, as small detail is not looked at
DARK = 0.1  # share of the range above the darkest values below which a pixel is background


@dataclass(frozen=True, slots=True)
class People:
    """Patients of a route by their labels: all normal, normal and abnormal, only abnormal."""

    normal: int
    mixed: int
    abnormal: int

    @classmethod
    def count(cls, slices: Sequence[SliceRef]) -> People:
        """Count the patients of slices of all labels."""
        labels: dict[str, set[str]] = defaultdict(set)
        for ref in slices:
            labels[ref.patient_id].add(ref.label)
        kinds = Counter(
            "mixed" if {"normal", "abnormal"} <= given else next(iter(given - {"unknown"}), "unknown")
            for given in labels.values()
        )
        return cls(kinds["normal"], kinds["mixed"], kinds["abnormal"])


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured.

    Attributes:
        modality, body_part: DICOM (0008,0060) and (0018,0015), the most frequent; "" where the files do not say.
        eight_bit: whether stored values have 8 bits: the range was fixed when the images were made.
        rows, columns: medians.
        slices_per_series: median, over the series of the train normals.
        low, high: 0.5th and 99.5th percentile of the pixels, in physical units.
        foreground: share of pixels that are not dark background, 0..1.
        symmetry: correlation of foreground pixels with those of the mirrored image, median over images, -1..1.
        likeness: the same with another normal image, not mirrored: what an image says about any other.
        adjacent: the same with the next slice of the series; None without series of three slices.
        train, validate: normal slices of these sets; `units`: independent normal cases of the calibrate set.
    """

    modality: str
    body_part: str
    eight_bit: bool
    rows: int
    columns: int
    slices_per_series: int
    low: float
    high: float
    foreground: float
    symmetry: float
    likeness: float
    adjacent: float | None
    train: int
    validate: int
    units: int

    @property
    def projection(self) -> bool:
        """Whether the images are projections: everything along the ray is in one pixel, and tissue fills the frame."""
        return self.modality in ("CR", "DX", "MG", "RF", "XA", "PX", "IO")

    @property
    def stacks(self) -> bool:
        """Whether the series are stacks of slices."""
        return self.slices_per_series >= 3

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_facts(train: Selection, validate: Selection, units: int, store: FrameStore) -> Facts:
    """Look at the train normals; pixels of some `LOOKED_AT` of them.

    Raises:
        EmptySelection: none of them can be read.
    """
    series = _by_series(train)
    chosen = _spread(train.slices, LOOKED_AT)
    images = [image for ref in chosen if (image := _read_small(store, ref)) is not None]
    if not images:
        raise EmptySelection(
            f"None of the {len(chosen)} normal images that were looked at can be read. See why with nightread doctor"
        )
    low, high = np.percentile(np.concatenate([image.ravel() for image in images]), [0.5, 99.5])
    masks = [_foreground(image) for image in images]
    pairs = list(zip(images, masks, strict=True))
    turned = [alike(x, x[:, ::-1], m & m[:, ::-1]) for x, m in pairs]
    others = [alike(x, y, m & n) for (x, m), (y, n) in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    attributes = [ref.attributes for ref in chosen]
    return Facts(
        modality=_most(attributes, "modality"),
        body_part=_most(attributes, "body_part"),
        eight_bit=all(int(values.get("bits_stored") or 16) <= 8 for values in attributes),
        rows=round(median(int(values["rows"]) for values in attributes)),
        columns=round(median(int(values["columns"]) for values in attributes)),
        slices_per_series=round(median(len(refs) for refs in series)),
        low=float(low),
        high=float(high),
        foreground=float(np.mean([mask.mean() for mask in masks])),
        symmetry=_median(turned),
        likeness=_median(others),
        adjacent=_adjacent(series, store),
        train=len(train.slices),
        validate=len(validate.slices),
        units=units,
    )


def alike(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """Return the correlation of two images over some pixels; NaN where one of them is constant."""
    x, y = a[where].astype(np.float64), b[where].astype(np.float64)
    if x.size < 2 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _by_series(train: Selection) -> list[list[SliceRef]]:
    return [list(refs) for refs in train.members.values()]


def _spread(slices: Sequence[SliceRef], count: int) -> list[SliceRef]:
    """Return at most `count` slices, evenly spread."""
    few = min(count, len(slices))
    return [slices[number * len(slices) // few] for number in range(few)]


def _read_small(store: FrameStore, ref: SliceRef) -> np.ndarray | None:
    """Return a slice in physical units on a small square, or None if it cannot be read; training lists it then."""
    try:
        plane = load_plane(store, ref)
    except (Rejected, CatalogueError):
        return None
    inside = plane.pixels if plane.valid is None else plane.pixels[plane.valid]
    darkest = float(inside.min()) if inside.size else 0.0
    filled = plane.pixels if plane.valid is None else np.where(plane.valid, plane.pixels, darkest)
    return Letterbox.fit(filled.shape, GRID).place(filled, darkest)


def _foreground(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, [0.5, 99.5])
    return np.asarray(image > low + DARK * (high - low))


def _adjacent(series: Sequence[list[SliceRef]], store: FrameStore) -> float | None:
    """Return how alike neighbouring slices are, on the middle three slices of some series."""
    stacks = [refs for refs in series if len(refs) >= 3]
    values = []
    for number in range(min(len(stacks), LOOKED_AT // 3)):
        refs = stacks[number * len(stacks) // min(len(stacks), LOOKED_AT // 3)]
        middle = len(refs) // 2
        images = [_read_small(store, ref) for ref in refs[middle - 1 : middle + 2]]
        values += list(_pairs([image for image in images if image is not None]))
    return _median(values) if values else None


def _pairs(images: Sequence[np.ndarray]) -> Iterator[float]:
    for one, other in pairwise(images):
        if one.shape == other.shape:
            yield alike(one, other, _foreground(one) & _foreground(other))


def _most(attributes: Sequence[Any], name: str) -> str:
    return Counter(str(values.get(name) or "") for values in attributes).most_common(1)[0][0]


def _median(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(median(finite)) if finite else 0.0
