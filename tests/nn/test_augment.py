"""Differentiable augmentation: the identity at probability 0, gradients, rows of their own, and its adaptation."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pipeline.nn.augment import augment, follow_confidence
from pipeline.nn.rng import Rng


def images(count: int = 4, edge: int = 16, spatial_dims: int = 2) -> torch.Tensor:
    return Rng(range(count)).uniform(1, *[edge] * spatial_dims, low=-1, high=1)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_at_probability_0_it_is_the_identity_and_at_1_every_image_changes(spatial_dims: int) -> None:
    x = images(4, 8, spatial_dims)
    assert torch.equal(augment(x, torch.tensor(0.0), Rng(range(4))), x)
    changed = augment(x, torch.tensor(1.0), Rng(range(4)))
    assert changed.shape == x.shape and all(not torch.equal(a, b) for a, b in zip(x, changed, strict=True))


def test_gradients_agree_with_differences() -> None:
    x = images(2, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, torch.tensor(0.7), Rng([3, 4])), x)


def test_a_row_depends_on_its_own_stream_only() -> None:
    x = images()
    whole = augment(x, torch.tensor(0.5), Rng(range(4)))
    assert_close(augment(x[2:3], torch.tensor(0.5), Rng([2])), whole[2:3])


def test_each_change_has_the_given_probability() -> None:
    # On a constant image, a value other than its own and 0 is brightness, since contrast does not show on it.
    x = torch.full((2000, 1, 16, 16), 0.25)
    changed = augment(x, torch.tensor(0.3), Rng(range(2000)))
    same = (changed == x).flatten(1).all(dim=1).float().mean().item()
    brightened = ((changed != x) & (changed != 0)).flatten(1).any(dim=1).float().mean().item()
    # one move in 25 is by (0, 0); every cut covers something
    assert same == pytest.approx(0.7 * (1 - 0.3 * 24 / 25) * 0.7, abs=0.04)
    assert brightened == pytest.approx(0.3, abs=0.04)


def test_an_image_is_moved_by_up_to_an_eighth_and_a_square_is_cut() -> None:
    x = 10 + images(256)  # far from the 0 of what is filled in
    empty = (augment(x, torch.tensor(1.0), Rng(range(256))) == 0).float().mean(dim=(1, 2, 3))
    assert empty.min() >= 1 / 16 and empty.max() <= 1 - (14 / 16) ** 2 + 1 / 4
    # A move keeps (1 - 1.2 / 16)^2 on average, and a square of 8 whose centre is on the image covers (7 / 16)^2 of it.
    assert_close(empty.mean().item(), 1 - (1 - 1.2 / 16) ** 2 * (1 - (7 / 16) ** 2), rtol=0, atol=0.02)


def test_the_probability_follows_the_confidence_and_stays_a_probability() -> None:
    p = torch.tensor(0.5)
    assert follow_confidence(p, torch.tensor(0.9), 0.6, 0.1).item() == pytest.approx(0.6)
    assert follow_confidence(p, torch.tensor(0.1), 0.6, 0.1).item() == pytest.approx(0.4)
    assert follow_confidence(torch.tensor(0.95), torch.tensor(0.9), 0.6, 0.1).item() == 1
    assert follow_confidence(torch.tensor(0.05), torch.tensor(0.1), 0.6, 0.1).item() == 0
