"""`learned_residual`: what the head sees, which network learns when, and what it needs from its reconstructor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.corruption import LesionConfig, ShapeConfig, Tinted, paint
from pipeline.errors import ConfigError
from pipeline.methods import build_method
from pipeline.methods.component import ComponentConfig
from pipeline.methods.learned_residual import LearnedResidual, LearnedResidualConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch

WIDTHS = (8, 8, 8, 8, 8, 8)
LESIONS = LesionConfig(healthy=0, shape=ShapeConfig(radius=(0.1, 0.2)), textures=(Tinted(contrast=(0.3, 0.8)),))
SMALL_VAE = ComponentConfig(method={"name": "vae", "widths": [8, 16], "latent": 8})


class Listens(nn.Module):
    """Records what the head sees; its logit is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return torch.zeros_like(x[:, :1])


def build(**values: object) -> LearnedResidual:
    method = build_method(LearnedResidualConfig(widths=WIDTHS, lesions=LESIONS, reconstructor=SMALL_VAE, **values), 32)
    assert isinstance(method, LearnedResidual)
    return method


@pytest.mark.parametrize("sees", ["both", "image", "reconstruction", "difference"])
def test_the_head_sees_what_the_configuration_says(sees: str, batch: Batch) -> None:
    method = build(sees=sees)
    method.network = Listens()
    maps, x = method.anomaly_map(batch.images, Rng(range(16))), batch.images
    x_hat = method.reconstructor.reconstruct(x, Rng(range(16)))
    expected = {"both": torch.cat([x, x_hat], 1), "image": x, "reconstruction": x_hat, "difference": x - x_hat}
    assert torch.equal(method.network.seen[0], expected[sees])
    assert_close(maps, torch.full_like(maps, 2.0).log())  # -log(1 - 1/2)


def test_in_training_the_reconstructor_answers_the_painted_image(batch: Batch) -> None:
    method = build()
    method.network = Listens()
    method.loss(batch, "head", Rng(range(16)))
    painted, x_hat = method.network.seen[0].chunk(2, dim=1)
    assert torch.equal(painted, method.config.lesson(batch, Rng(range(16))).painted.images)
    assert_close(x_hat, method.reconstructor.reconstruct(painted, Rng(range(16))))


def test_the_reconstructor_learns_first_and_the_head_after_it(batch: Batch) -> None:
    method = build(share=0.25)
    first, second = method.phases
    assert (first.name, first.after, first.until) == ("reconstructor_train", 0.0, 0.25)
    assert (second.name, second.after, second.until) == ("head", 0.25, 1.0)
    assert method.loss(batch, "reconstructor_train", Rng(range(16))).keys() == {"total", "reconstruction", "kl"}
    method.loss(batch, "head", Rng(range(16)))["total"].backward()
    assert all(p.grad is None for p in method.reconstructor.parameters())
    assert any(p.grad is not None for p in method.network.parameters())


def test_a_trained_reconstructor_is_frozen_and_only_named(batch: Batch) -> None:
    config = LearnedResidualConfig(widths=WIDTHS, reconstructor=ComponentConfig(run="r", sha256="0" * 64))
    trained = build().reconstructor
    method = build_method(config, 32, trained={"reconstructor": trained})
    assert [phase.name for phase in method.phases] == ["head"] and method.phases[0].after == 0
    assert all(name.startswith("network.") for name in method.own_state())
    assert method.config.reconstructor.method["name"] == "vae"


def test_a_component_that_does_not_reconstruct_or_has_another_grid_is_refused() -> None:
    mapper = ComponentConfig(method={"name": "synthetic_lesion", "widths": list(WIDTHS)})
    with pytest.raises(ConfigError, match="synthetic_lesion.*reconstruct"):
        build_method(LearnedResidualConfig(widths=WIDTHS, reconstructor=mapper), 32)
    config = LearnedResidualConfig(widths=WIDTHS, reconstructor=ComponentConfig(run="r", sha256="0" * 64))
    with pytest.raises(ConfigError, match="64"):
        build_method(config, 64, trained={"reconstructor": build().reconstructor})


def test_a_trained_one_finds_painted_lesions(batch: Batch) -> None:
    torch.manual_seed(0)
    method = build()
    optimiser = torch.optim.Adam(method.network.parameters(), lr=5e-3)
    for step in range(100):
        optimiser.zero_grad()
        method.loss(batch, "head", Rng.training(0, 16 * step, 16))["total"].backward()
        optimiser.step()
    painted = paint(batch.images, batch.body, LESIONS, Rng(range(900, 916)))
    maps = method.anomaly_map(painted.images, Rng(range(16)))
    assert maps[painted.mask].mean() > 5 * maps[batch.body & ~painted.mask].mean()
