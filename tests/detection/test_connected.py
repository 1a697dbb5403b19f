"""Hysteresis on maps of series: by hand, against the binary rule at every threshold, and against ITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import torch
from scipy import ndimage
from torch import Tensor

from pipeline.detection.connected import hysteresis, reconstruct
from pipeline.detection.filters import gaussian_blur

ALL_NEIGHBOURS = np.ones((3, 3, 3), int)


@pytest.fixture
def maps() -> Tensor:
    """A series of seven slices with many regions of unlike heights, zeros and negative values among them."""
    noise = torch.randn(7, 1, 20, 24, generator=torch.Generator().manual_seed(4))
    smooth = gaussian_blur(noise, 0.06)
    return torch.where(smooth.abs() < 0.02, 0.0, smooth / smooth.max())


def regions(above: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The connected regions of `above` that contain a seed."""
    labels, _ = ndimage.label(above, structure=ALL_NEIGHBOURS)
    return above & np.isin(labels, np.unique(labels[seeds & above]))


def test_by_hand() -> None:
    """Along a row: a low hill that leads to a high one stays, the same hill alone does not; zeros part them."""
    row = torch.tensor([2.0, 2.0, 6.0, 0.0, 2.0, 1.0, 0.0, -1.0]).reshape(1, 1, 1, -1)
    assert hysteresis(row, 3).flatten().tolist() == pytest.approx([2, 2, 2, 0, 2 / 3, 2 / 3, 0, -1])
    assert torch.equal(hysteresis(row, 1), row)


def test_slices_connect_along_edges_and_corners() -> None:
    series = torch.zeros(3, 1, 4, 4)
    series[0, 0, 1, 1], series[1, 0, 2, 2], series[1, 0, 0, 3] = 9.0, 3.0, 3.0  # by a corner; not at all
    assert torch.equal(hysteresis(series, 3)[1, 0, [2, 0], [2, 3]], torch.tensor([3.0, 1.0]))
    apart = series[[0, 2, 1]]  # an empty slice between them
    assert torch.equal(hysteresis(apart, 3)[2, 0, [2, 0], [2, 3]], torch.tensor([1.0, 1.0]))


@pytest.mark.parametrize("ratio", [1.5, 4.0])
def test_at_every_threshold_it_is_the_binary_rule(maps: Tensor, ratio: float) -> None:
    lowered, series = hysteresis(maps, ratio)[:, 0].numpy(), maps[:, 0].numpy()
    for threshold in np.quantile(series[series > 0], [0.05, 0.2, 0.35, 0.5, 0.7, 0.9]) * 1.0001:
        expected = regions(series > threshold, series / ratio > threshold)
        np.testing.assert_array_equal(lowered > threshold, expected)
    assert 0 < (hysteresis(maps, ratio) < maps).float().mean() < 1
    assert torch.equal(lowered_where := hysteresis(maps, ratio)[maps <= 0], maps[maps <= 0]) and len(lowered_where)


def test_the_order_of_the_slices_may_be_reversed(maps: Tensor) -> None:
    assert torch.equal(hysteresis(maps.flip(0), 2.0), hysteresis(maps, 2.0).flip(0))


def test_reconstruction_is_itks(maps: Tensor) -> None:
    seeds = torch.where(maps > 0, maps / 2.5, maps)
    images = [SimpleITK.GetImageFromArray(values[:, 0].numpy()) for values in (seeds, maps)]
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReconstructionByDilation(*images, fullyConnected=True))
    np.testing.assert_array_equal(reconstruct(seeds, maps)[:, 0].numpy(), theirs)
