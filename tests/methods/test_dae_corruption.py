"""`dae` on painted lesions and through a bottleneck: its input, its target, and what the bottleneck lets pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.corruption import IntensityConfig, LesionConfig, ShapeConfig, Tinted, paint
from pipeline.diffusion.noise import coarse
from pipeline.methods.dae import DaeConfig, DenoisingAutoencoder
from pipeline.nn.rng import Rng
from pipeline.types import Batch

WIDTHS = (8, 8, 8, 8, 8, 8)
LESIONS = LesionConfig(shape=ShapeConfig(radius=(0.08, 0.2)), textures=(Tinted(contrast=(0.3, 0.8)),))


class Zero(nn.Module):
    """A network that corrects nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def idle(**values: object) -> DenoisingAutoencoder:
    method = DaeConfig(widths=WIDTHS, lesions=LESIONS, **values).build(32)
    method.network = Zero()
    return method


def test_each_corruption_is_noise_lesions_or_noise_upon_lesions(batch: Batch) -> None:
    x, body = batch.images, batch.body
    lesions = paint(x, body, LESIONS, Rng(range(16))).images
    noise = 0.25 * coarse(Rng(range(16)), (1, 32, 32), 8) * body
    expected = {"noise": x + noise, "lesions": lesions, "both": lesions + noise}
    for corruption, corrupted in expected.items():
        painted = idle(corruption=corruption).config.corrupt(x, body, Rng(range(16)))
        assert_close(painted.images, corrupted)
        assert torch.equal(painted.images[~body], x[~body]) and not painted.mask[~body].any()
        assert (painted.images - x)[painted.mask].abs().mean() > 2 * (painted.images - x)[~painted.mask].abs().mean()


def test_an_idle_network_pays_for_what_was_painted(batch: Batch) -> None:
    change = paint(batch.images, batch.body, LESIONS, Rng(range(16))).images - batch.images
    inside = batch.body.flatten(1).sum(dim=1)
    terms = idle(corruption="lesions", l1=0.5, l2=2.0).loss(batch, "train", Rng(range(16)))
    assert_close(terms["reconstruction"], (change.square().flatten(1).sum(dim=1) / inside).mean())
    assert_close(terms["absolute"], (change.abs().flatten(1).sum(dim=1) / inside).mean())
    assert_close(terms["total"], 2 * terms["reconstruction"] + 0.5 * terms["absolute"])


def test_the_ssim_term_is_0_for_the_truth_and_looks_at_the_body_only(batch: Batch) -> None:
    method = idle(ssim=1.0, l2=0.0, corruption="lesions")
    x, body = batch.images, batch.body
    assert abs(method._dissimilarity(x, x)) < 1e-5
    loss = method.loss(batch, "train", Rng(range(16)))
    assert 0.01 < loss["dissimilarity"] < 1 and loss["total"] == loss["dissimilarity"]

    class Outside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(body, 0.0, 3.0)

    method.network = Outside()
    assert_close(method.loss(batch, "train", Rng(range(16)))["total"], loss["total"])


def test_the_target_is_the_jittered_image_and_never_a_painted_one(batch: Batch) -> None:
    config = IntensityConfig(gamma=1.5)
    method = idle(corruption="lesions", intensity=config)
    seen: list[Tensor] = []
    method.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    # Where nothing is painted input and target agree, however the image was jittered: an idle network pays nothing.
    clean = LesionConfig(textures=(Tinted(contrast=(0, 0), wipe=(0, 0)),))
    method.config = method.config.model_copy(update={"lesions": clean})
    assert method.loss(batch, "train", Rng(range(16)))["total"] == 0
    assert not torch.allclose(seen[0], batch.images)


def test_a_bottleneck_lets_no_more_through_than_its_code_holds() -> None:
    # 8 channels on a grid of 2 x 2: whichever way an image is changed a little, its reconstruction moves in a space of
    # 32 dimensions at most. Of 100 directions the U-Net lets all through.
    values = {"widths": (8, 16, 16, 16, 16, 8), "code": 8, "residual": False}
    x = 0.5 * Rng([3]).normal(1, 32, 32)

    def rank(network: str) -> int:
        method = DaeConfig(**values, network=network).build(32).eval().double()
        directions = 1e-6 * Rng([4]).normal(100, 1, 32, 32)[0].double()
        with torch.no_grad():
            changes = (method(x.double() + directions) - method(x.double() - directions)).flatten(1)
        return int(torch.linalg.matrix_rank(changes, rtol=1e-6))

    assert rank("bottleneck") <= 32
    assert rank("unet") == 100


def test_a_bottleneck_that_predicts_a_correction_is_refused() -> None:
    with pytest.raises(ValidationError, match="residual: false"):
        DaeConfig(network="bottleneck")
    with pytest.raises(ValidationError, match="l1, l2 and ssim"):
        DaeConfig(l2=0.0)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("network", ["unet", "bottleneck"])
def test_either_network_learns_in_two_and_three_dimensions(network: str, spatial_dims: int) -> None:
    config = DaeConfig(
        widths=WIDTHS, code=8, network=network, residual=False, corruption="both", lesions=LESIONS, ssim=0.5
    )
    method = config.build(32, spatial_dims=spatial_dims)
    x = torch.zeros(2, 1, *[32] * spatial_dims)
    terms = method.loss(Batch(x, x == 0, ("a", "b")), "train", Rng([1, 2]))
    terms["total"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    assert method.reconstruct(x, Rng([1, 2])).shape == x.shape


def test_a_trained_one_removes_what_was_painted_and_keeps_the_rest(discs: Any) -> None:
    from pipeline.training import TrainingConfig, TrainState, train

    method = DaeConfig(widths=WIDTHS, corruption="lesions", lesions=LESIONS, lr=3e-3).build(32)
    state = TrainState(method, TrainingConfig(batch_size=8, images=480, ema_decay=0.95))
    list(train(state, discs, 480))
    clean = torch.stack([discs[i]["image"] for i in range(16)])
    painted = paint(clean, discs.body.expand(16, -1, -1, -1), LESIONS, Rng(range(700, 716)))
    x_hat = state.ema.reconstruct(painted.images, Rng(range(16)))
    left = (x_hat - clean).abs()[painted.mask].mean() / (painted.images - clean).abs()[painted.mask].mean()
    elsewhere = (painted.coverage == 0) & discs.body
    assert left < 0.45
    assert (x_hat - clean).abs()[elsewhere].mean() < 0.05
