"""Mass effect: tissue moves away from the lesion, as far as asked, and stays where it is elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pipeline.corruption import LesionConfig, Tinted, paint
from pipeline.corruption.mass_effect import push_outwards
from pipeline.nn.rng import Rng

SIZE, RADIUS = 64, 0.15


def disc(dims: int = 2) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.arange(SIZE) - (SIZE - 1) / 2] * dims, indexing="ij")
    return (torch.stack(axes).square().sum(dim=0).sqrt() < RADIUS * SIZE).float()[None, None]


def ramp(axis: int, dims: int = 2) -> torch.Tensor:
    """An image whose value is the position along an axis, in edges."""
    line = torch.arange(SIZE) / SIZE
    return line.reshape([-1 if i == axis else 1 for i in range(dims)]).expand(1, 1, *[SIZE] * dims).contiguous()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("strength", [0.2, 0.5])
def test_tissue_moves_outwards_by_at_most_the_strength_and_not_far_away(dims: int, strength: float) -> None:
    coverage, middle = disc(dims), SIZE // 2
    for axis in range(dims):
        x = ramp(axis, dims)
        moved = push_outwards(x, coverage, torch.tensor([RADIUS]), torch.tensor([strength])) - x
        along = moved[(0, 0, *[slice(None) if i == axis else middle for i in range(dims)])]
        below, above = along[: middle - 4], along[middle + 4 :]
        assert below.max() > 0 > above.min()  # what lies there now comes from nearer to the lesion
        assert below.min() > -1e-4 and above.max() < 1e-4
        assert_close(torch.tensor([below.max(), -above.min()]), torch.full((2,), strength * RADIUS), atol=4e-3, rtol=0)
        assert along[0].abs() < 2e-3 and along[-1].abs() < 2e-3


def test_painted_lesions_push_their_surroundings_and_only_if_asked() -> None:
    x, body = ramp(0).expand(8, 1, SIZE, SIZE) * 1.6 - 0.8, torch.ones(8, 1, SIZE, SIZE, dtype=torch.bool)
    plain, pushing = (
        paint(x, body, LesionConfig(healthy=0, most=1, textures=(Tinted(),), mass_effect=effect), Rng(range(8)))
        for effect in ((0.0, 0.0), (0.5, 0.5))
    )
    outside = plain.coverage == 0
    assert torch.equal(plain.coverage, pushing.coverage) and torch.equal(plain.images[outside], x[outside])
    assert (pushing.images - x)[outside].abs().max() > 0.02
    assert not pushing.mask[outside].any()


def test_twins_lie_on_both_sides_within_the_body() -> None:
    x, body = torch.zeros(8, 1, SIZE, SIZE), torch.ones(8, 1, SIZE, SIZE, dtype=torch.bool)
    body[..., :8] = False
    config = LesionConfig(healthy=0, most=1, both_sides=1.0)
    covered = paint(x, body, config, Rng(range(8))).coverage
    mirrored = covered.flip(-1)
    inside = body & body.flip(-1)
    assert torch.equal(covered[inside], mirrored[inside]) and not covered[~body].any()
    half = paint(x, body, config.model_copy(update={"both_sides": 0.5}), Rng(range(8))).coverage
    assert 0 < sum(torch.equal(a[0, :, 8:56], a.flip(-1)[0, :, 8:56]) for a in half) < 8
