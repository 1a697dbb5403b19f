"""JPEG-like compression against Pillow's own, and what no compression is."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch.testing import assert_close

from pipeline.corruption.block_compression import compress
from pipeline.nn.rng import Rng


def test_it_is_pillows_jpeg_up_to_its_rounding_of_pixels() -> None:
    grey = (Rng([1]).uniform(1, 40, 45)[0, 0] * 90 + torch.linspace(20, 140, 45)).round()
    for quality in (20, 50, 75, 95):
        buffer = BytesIO()
        Image.fromarray(grey.numpy().astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        expected = np.asarray(Image.open(buffer)).astype(np.float32)
        ours = compress(grey[None, None] / 127.5 - 1, torch.tensor([float(quality)]))[0, 0]
        assert np.abs((ours.numpy() + 1) * 127.5 - expected).mean() < 1.5


def test_a_row_has_its_own_quality_and_a_slice_of_a_volume_is_an_image() -> None:
    x = Rng([1, 2]).uniform(1, 16, 16, low=-1, high=1)
    both = compress(x, torch.tensor([10.0, 90.0]))
    assert_close(both[1:], compress(x[1:], torch.tensor([90.0])))
    assert (both[0] - x[0]).abs().mean() > 3 * (both[1] - x[1]).abs().mean()
    volume = compress(x.reshape(1, 1, 2, 16, 16), torch.tensor([10.0]))
    assert_close(volume[0, 0, 0], both[0, 0])
