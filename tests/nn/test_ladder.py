"""A ladder of codes: one code per level on its own grid, and no way around the codes."""

from __future__ import annotations

import pytest
import torch

from pipeline.nn.ladder import LadderUNet
from pipeline.nn.unet import UNetFields

ENCODED, DECODED = (2, 4, 6, 8, 10), (1, 2, 3, 4, 5)


@pytest.mark.parametrize(("patch", "dims"), [(1, 2), (2, 2), (1, 3)])
def test_each_level_has_its_code_and_grid(patch: int, dims: int) -> None:
    network = LadderUNet(dims, 1, 2, UNetFields(widths=(8,) * 6, patch=patch, mirrored=True), ENCODED, DECODED)
    levels = network.encode(torch.randn(2, 1, *[32] * dims))
    assert [tuple(level.shape) for level in levels] == [
        (2, width, *[32 // patch // 2**i] * dims) for i, width in enumerate(ENCODED)
    ]
    codes = [level[:, ::2] for level in levels]
    assert network.decode(codes).shape == (2, 2, *[32] * dims)


def test_the_decoder_sees_the_image_through_each_of_the_codes_and_in_no_other_way() -> None:
    network = LadderUNet(2, 1, 1, UNetFields(widths=(8,) * 6), DECODED, DECODED).eval()
    codes = network.encode(torch.randn(1, 1, 32, 32))
    before = network.decode(codes)
    network.encode(torch.randn(1, 1, 32, 32))
    assert torch.equal(network.decode(codes), before)
    for level in range(5):
        others = [code if i != level else code + 1 for i, code in enumerate(codes)]
        assert not torch.equal(network.decode(others), before)
