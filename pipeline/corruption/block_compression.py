"""JPEG-like compression: the rounded cosine transform of 8x8 blocks, without the entropy coding, which loses nothing.

ITU-T T.81 (1992): the transform of annex A.3.3, the luminance table of annex K.1; scaled by a quality as libjpeg does.
Deviation: quality and pixels are real numbers, and slices of volumes are compressed one by one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE = 8
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)  # step of each frequency at quality 50, in grey levels of 0 to 255


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Return images [B, C, *spatial] in [-1, 1] as they are read back after a JPEG of each row's quality [B], 1 to 100.

    No randomness; frames that are not a multiple of 8 are continued by their last pixels.
    """
    *_, rows, columns = images.shape
    flat = images.reshape(len(images), -1, rows, columns)
    padded = F.pad(flat, (0, -columns % EDGE, 0, -rows % EDGE), mode="replicate") * 127.5
    high, wide = padded.shape[-2] // EDGE, padded.shape[-1] // EDGE
    blocks = padded.reshape(len(images), -1, high, EDGE, wide, EDGE).transpose(3, 4)
    cosine, step = _cosine_transform(images), _steps(quality)[:, None, None, None]
    coefficients = (cosine @ blocks @ cosine.T / step).round() * step
    back = (cosine.T @ coefficients @ cosine).transpose(3, 4).reshape(padded.shape)
    return (back[..., :rows, :columns] / 127.5).reshape(images.shape)


def _cosine_transform(like: Tensor) -> Tensor:
    """Return the orthonormal transform [8, 8]: frequency by pixel."""
    place = torch.arange(EDGE, dtype=like.dtype, device=like.device)
    matrix = torch.cos(math.pi / EDGE * (place + 0.5) * place[:, None]) * math.sqrt(2 / EDGE)
    matrix[0] *= math.sqrt(0.5)
    return matrix


def _steps(quality: Tensor) -> Tensor:
    """Return the step of each frequency, [B, 8, 8]: libjpeg's scaling of the table, at least 1."""
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    table = torch.tensor(LUMINANCE, dtype=quality.dtype, device=quality.device)
    return (table * scale[:, None, None]).clamp_min(1)
