"""Trivial scores that every model must beat, and that are printed beside it: what the image reveals without a model.

Higher need not mean "more anomalous": controls are reported unchanged, and no sign is flipped here.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.ndimage import convolve
from sklearn.decomposition import PCA

from pipeline import durable
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.letterbox import resample
from pipeline.data.images.load_slice import FrameStore
from pipeline.data.images.normalise import Normaliser
from pipeline.detection.slices import native_map
from pipeline.errors import ArtefactError, ConfigError, EmptySelection
from pipeline.types import Step

COMPONENTS = 16
PCA_SIZE = 64  # larger images are resized to this before the PCA
PCA_IMAGES = 4096  # if there are more training images, those with the smallest hash are used
CONTROLS = ("mean_intensity", "std", "gradient_energy", "noise", "compressed_bytes", "slice_position", "pca_residual")


@dataclass(frozen=True, slots=True)
class ControlSlice:
    """Input of the controls for one slice.

    Attributes:
        id: id of the slice.
        image: float32 [S, S] in [-1, 1], as given to the model.
        body: bool [S, S].
        stored: [H, W] as stored in the file; None if unavailable (then there is no compressed size).
        relative_position: 0..1 along the series.
    """

    id: str
    image: np.ndarray
    body: np.ndarray
    stored: np.ndarray | None = None
    relative_position: float = 0.5


@dataclass(frozen=True, slots=True)
class ControlModel:
    """The only trained control: mean and principal components of the training normals.

    Attributes:
        mean: float32 [D]; components: float32 [k, D], orthonormal rows; D = size^2.
        size: edge of the images that the components span.
    """

    mean: np.ndarray
    components: np.ndarray
    size: int

    @classmethod
    def fit(cls, train: Iterable[ControlSlice], components: int = COMPONENTS) -> ControlModel:
        """Fit on training normals; the order of the slices affects only rounding.

        Raises:
            EmptySelection: fewer than two slices.
        """
        chosen = sorted(train, key=lambda item: hashlib.sha256(item.id.encode()).digest())[:PCA_IMAGES]
        if len(chosen) < 2:
            raise EmptySelection(
                f"The PCA control needs at least 2 training slices, but there are {len(chosen)}. Label more normal "
                "scans."
            )
        size = min(chosen[0].image.shape[-1], PCA_SIZE)
        flat = np.stack([_flat(item.image, size) for item in chosen])
        count = min(components, len(chosen) - 1, flat.shape[1])
        pca = PCA(count, svd_solver="randomized", random_state=0).fit(flat)
        # C order: safetensors' save_file writes raw memory, and scikit-learn's arrays are in column order.
        return cls(pca.mean_.astype(np.float32), np.ascontiguousarray(pca.components_, dtype=np.float32), size)

    def residual(self, image: np.ndarray, body: np.ndarray) -> float:
        """Return the mean squared in-body distance of an image to its projection; NaN without a body."""
        shift = _flat(image, self.size) - self.mean
        squared = np.square(shift - (shift @ self.components.T) @ self.components)
        inside = resample(body.astype(np.float32), (self.size, self.size)).ravel() >= 0.5
        return float(squared[inside].mean(dtype=np.float64)) if inside.any() else math.nan

    def save(self, path: Path) -> None:
        """Write safetensors atomically."""
        with durable.writing(path) as part:
            save_file({"mean": self.mean, "components": self.components}, part)

    @classmethod
    def load(cls, path: Path) -> ControlModel:
        """Read safetensors; raise ArtefactError if they are missing, damaged or of the wrong shape."""
        try:
            tensors = load_file(path)
            mean, components = tensors["mean"], tensors["components"]
        except (OSError, SafetensorError, KeyError) as error:
            raise ArtefactError(f"The controls cannot be read ({type(error).__name__}). Fit them again.") from None
        size = math.isqrt(mean.size)
        if size**2 != mean.size or components.ndim != 2 or components.shape[1] != mean.size:
            raise ArtefactError(
                f"Controls of shapes {mean.shape} and {components.shape} are not valid. Fit them again."
            )
        return cls(mean, components, size)


def control_scores(slices: Iterable[ControlSlice], fitted: ControlModel) -> dict[str, np.ndarray]:
    """Return each control of `CONTROLS` as float64 [N], in the order of the slices; NaN if it is not available.

    A slice's values depend on that slice alone.
    """
    rows = [_scores(item, fitted) for item in slices]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in CONTROLS}


def control_slices(data: SliceDataset, store: FrameStore, with_stored: bool = True) -> Iterator[ControlSlice]:
    """Yield the controls' inputs of a data set, in its order."""
    for index in range(len(data)):
        yield control_slice(data, index, store if with_stored else None)


def control_slice(data: SliceDataset, index: int, store: FrameStore | None) -> ControlSlice:
    """Return what the controls see of one slice; without a store, not its stored pixels."""
    item, ref = data[index], data.slices[index]
    stored = None if store is None else store.get(ref.pixel_key, ref.frame)
    image, body = np.asarray(item["image"])[0], np.asarray(item["body"])[0]
    return ControlSlice(item["id"], image, body, stored, ref.relative_position)


def brightness_map(normaliser: Normaliser, item: ControlSlice, step: Step) -> np.ndarray:
    """Return the control of pixel metrics: the normalised image itself as an anomaly map [H, W], on the native grid."""
    return native_map(normaliser, item.image, item.body, step)[0]


def _scores(item: ControlSlice, fitted: ControlModel) -> dict[str, float]:
    _check(item)
    inside = item.image[item.body].astype(np.float64)
    empty = inside.size == 0
    return {
        "mean_intensity": math.nan if empty else float(inside.mean()),
        "std": math.nan if empty else float(inside.std()),
        "gradient_energy": gradient_energy(item.image, item.body),
        "noise": noise(item.image, item.body),
        "compressed_bytes": math.nan if item.stored is None else float(compressed_bytes(item.stored)),
        "slice_position": float(item.relative_position),
        "pca_residual": fitted.residual(item.image, item.body),
    }


def gradient_energy(image: np.ndarray, body: np.ndarray) -> float:
    """Return the mean over the body of the squared gradient (central differences, per pixel); NaN without a body."""
    down, across = np.gradient(image.astype(np.float64))
    squared: Any = down**2 + across**2
    return float(squared[body].mean()) if body.any() else math.nan


def noise(image: np.ndarray, body: np.ndarray) -> float:
    """Return Immerkaer's estimate of the noise's standard deviation, over the body's pixels off the frame's edge.

    Immerkaer 1996, "Fast noise variance estimation", equation 5; NaN if there are no such pixels.
    """
    mask = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float64)
    response = np.abs(convolve(image.astype(np.float64), mask, mode="nearest"))
    inner = np.zeros_like(body)
    inner[1:-1, 1:-1] = body[1:-1, 1:-1]
    return float(math.sqrt(math.pi / 2) / 6 * response[inner].mean()) if inner.any() else math.nan


def compressed_bytes(stored: np.ndarray) -> int:
    """Return the size of a stored frame [H, W] as a PNG of 8 or 16 bits (signed values shifted); zlib for
    other types.
    """
    values = np.asarray(stored)
    if values.ndim != 2 or values.size == 0:
        raise ConfigError(f"A stored frame of shape {values.shape} was given, but [rows, columns] is needed.")
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        return len(zlib.compress(np.ascontiguousarray(values).tobytes()))
    shift = np.iinfo(values.dtype).min
    unsigned = (values.astype(np.int32) - shift).astype(np.uint8 if values.dtype.itemsize == 1 else np.uint16)
    buffer = BytesIO()
    Image.fromarray(unsigned).save(buffer, "PNG")
    return buffer.tell()


def _flat(image: np.ndarray, size: int) -> np.ndarray:
    return resample(image, (size, size)).ravel()


def _check(item: ControlSlice) -> None:
    shapes: Sequence[tuple[int, ...]] = (item.image.shape, item.body.shape)
    if len(shapes[0]) != 2 or shapes[0] != shapes[1]:
        raise ConfigError(f"Slice {item.id}: image {shapes[0]} and body {shapes[1]} must both be [S, S].")
