"""Ways to write a signal frame by frame: a codec's units, k-means on the same frames, and the frames themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.methods.vq_vae import VectorQuantisedAutoencoder
from pipeline.stages.generate.task_images import BATCH

CEPSTRA = 13
ROUNDS = 3  # starts of k-means


@dataclass(frozen=True, slots=True)
class Written:
    """Recordings in one representation.

    Attributes:
        name: of the representation.
        vectors: [N, T, D], what distances are measured between.
        units: int [N, T], None where the representation is continuous.
        rate_hz: frames per second.
    """

    name: str
    vectors: np.ndarray
    units: np.ndarray | None
    rate_hz: float


def rows_of(images: Tensor, samples: int, rows: int) -> np.ndarray:
    """Return the rows of squares [N, 1, S, S] as frames, float64 [N, samples, rows]."""
    return images.double().reshape(len(images), -1, samples)[:, :rows].transpose(1, 2).numpy()


def cepstra_of(frames: np.ndarray) -> np.ndarray:
    """Return the cepstrum of log-mel frames [N, T, bands], 13 coefficients without the mean of each recording."""
    from scipy.fft import dct

    values = dct(frames, norm="ortho", axis=2)[:, :, :CEPSTRA]
    return cast(np.ndarray, values - values.mean(axis=1, keepdims=True))


def pooled(frames: np.ndarray, hop: int) -> np.ndarray:
    """Return means of `hop` neighbouring frames: [N, T // hop, D]."""
    count = frames.shape[1] // hop
    return frames[:, : count * hop].reshape(len(frames), count, hop, -1).mean(axis=2)


def by_codec(method: VectorQuantisedAutoencoder, images: Tensor, rate_hz: float, samples: int) -> Written:
    """Return the units of a codec and the codebook's vectors that they stand for."""
    parts = [method.to_tokens(part).cpu().flatten(1).numpy() for part in images.split(BATCH)]
    units = np.concatenate(parts)
    book = method.quantiser.codebook.detach().cpu().double().numpy()
    return Written(method.config.name, book[units], units, rate_hz * units.shape[1] / samples)


def by_clusters(
    name: str, learned: np.ndarray, frames: np.ndarray, clusters: int, rate_hz: float, seed: int
) -> Written:
    """Return the nearest of `clusters` means for each frame [N, T, D], which k-means finds in `learned` [M, T, D]."""
    from sklearn.cluster import KMeans

    flat = learned.reshape(-1, learned.shape[2])
    means = KMeans(clusters, n_init=ROUNDS, max_iter=60, random_state=seed).fit(flat)
    units = means.predict(frames.reshape(-1, frames.shape[2])).reshape(frames.shape[:2])
    return Written(name, means.cluster_centers_[units], units, rate_hz)


def write_all(
    method: VectorQuantisedAutoencoder, learned: Tensor, images: Tensor, samples: int, rate_hz: float, seed: int
) -> list[Written]:
    """Return every representation of the images, the codec's last; k-means gets as many units at the same rate."""
    codec = by_codec(method, images, rate_hz, samples)
    hop, rows = round(rate_hz / codec.rate_hz), method.config.signals
    spectra: dict[str, Callable[[np.ndarray], np.ndarray]] = {"log-mel": lambda frames: frames, "MFCC": cepstra_of}
    written: list[Written] = []
    for name, of in spectra.items():
        taught, tried = (of(rows_of(part, samples, rows)) for part in (learned, images))
        written.append(Written(name, pooled(tried, hop), None, codec.rate_hz))
        clustered = by_clusters(
            f"k-means on {name}", pooled(taught, hop), pooled(tried, hop), method.vocabulary, codec.rate_hz, seed
        )
        written.append(clustered)
    return [*written, codec]


def require_signals(method: Method) -> None:
    """Refuse a method that does not write signals in units (ConfigError)."""
    if not isinstance(method, VectorQuantisedAutoencoder) or not method.config.signals:
        raise ConfigError(
            f"{method.config.name} does not write signals in units. Choose vq_vae with `signals`, the rows of the "
            "square, and a normaliser of kind signal."
        )
