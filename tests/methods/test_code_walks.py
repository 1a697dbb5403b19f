"""Walks between codes, on a codec whose code is known and on a method of the registry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ConfigError, Rejected
from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.code_walks import interpolate, traverse
from pipeline.methods.dae import DaeConfig
from pipeline.methods.vae import VaeConfig
from pipeline.nn.rng import Rng


class Halves(Method):
    """A codec of images of two halves, each of one shade: the code is the pair of shades, squared when decoded."""

    def __init__(self) -> None:
        super().__init__(MethodConfig(name="halves"), 4, 1, 2)

    def to_code(self, x: Tensor) -> Tensor:
        assert not self.training
        return torch.stack([x[:, 0, :2].mean(dim=(1, 2)), x[:, 0, 2:].mean(dim=(1, 2))], dim=1)[..., None, None]

    def from_code(self, z: Tensor) -> Tensor:
        rows = z[..., 0, 0].repeat_interleave(2, dim=1)
        return rows[:, None, :, None].square().expand(-1, 1, 4, 4)


def image(top: float, bottom: float) -> Tensor:
    return torch.tensor([top, top, bottom, bottom], dtype=torch.float32).reshape(1, 1, 4, 1).expand(1, 1, 4, 4)


def test_the_line_between_two_images_by_hand() -> None:
    a, b = torch.cat([image(0.0, 0.2), image(1, 1)]), torch.cat([image(0.8, 0.6), image(0, 0)])
    steps = interpolate(Halves().train(), a, b, 5)
    assert steps.shape == (2, 5, 1, 4, 4)
    assert_close(steps[0, :, 0, 0, 0], torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8]).square())
    assert_close(steps[0, :, 0, 3, 0], torch.tensor([0.2, 0.3, 0.4, 0.5, 0.6]).square())
    assert_close(steps[1, 1], image(0.75, 0.75)[0].square())


def test_one_dimension_takes_its_values_and_the_other_stays() -> None:
    images = traverse(Halves(), image(0.3, 0.5), 1, (-1.0, 0.0, 0.4))
    assert_close(images[0, :, 0, 3, 0], torch.tensor([1.0, 0.0, 0.16]))
    assert_close(images[0, :, 0, 0, 0], torch.full((3,), 0.09))


def test_a_vae_is_walked_in_eval_mode_without_gradients_and_left_as_it_was() -> None:
    method = VaeConfig(widths=(4, 8), latent=3).build(16).train()
    a, b = Rng([1, 2]).normal(1, 16, 16), Rng([3, 4]).normal(1, 16, 16)
    walk = interpolate(method, a, b, 3)
    assert method.training and not walk.requires_grad
    assert_close(walk[:, 0], method.reconstruct(a, Rng([1, 2])))
    assert_close(walk[:, 2], method.reconstruct(b, Rng([1, 2])))
    assert_close(interpolate(method, a[1:], b[1:], 3), walk[1:], rtol=1e-4, atol=1e-5)


def test_walks_that_lead_nowhere_are_refused() -> None:
    method, x = Halves(), image(0, 0)
    with pytest.raises(ConfigError, match=r"\b1\b"):
        interpolate(method, x, x, 1)
    for dim, values in ((2, (0.0,)), (-1, (0.0,)), (0, ())):
        with pytest.raises(ConfigError, match="dimension"):
            traverse(method, x, dim, values)
    with pytest.raises(ConfigError, match="dae"):
        traverse(DaeConfig(widths=(8, 8, 8, 16, 16, 8)).build(32), torch.zeros(1, 1, 32, 32), 0, (0.0,))
    with pytest.raises(Rejected):
        interpolate(method, torch.full_like(x, torch.nan), x, 2)
