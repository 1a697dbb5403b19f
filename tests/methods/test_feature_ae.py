"""`feature_ae`: errors by hand and by scikit-image's formula, a frozen target, and sizes that fit."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods.feature_ae import RANGE, FeatureAeConfig, dissimilarity
from pipeline.nn.backbone import BackboneConfig
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

RANDOM = BackboneConfig(kind="random", depths=(1, 2))
SMALL = FeatureAeConfig(backbone=RANDOM, widths=(8, 8))


class Images:
    """Four images with structure."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict[str, object]:
        line = torch.linspace(-3, 3, 32)
        image = (torch.sin(line * (1 + i))[:, None] * torch.cos(line)[None])[None]
        return {"image": image, "body": torch.ones_like(image, dtype=torch.bool), "id": str(i)}


def batch() -> Batch:
    items = [Images()[i] for i in range(4)]
    x = torch.stack([item["image"] for item in items])
    return Batch(x, torch.ones_like(x, dtype=torch.bool), ("a", "b", "c", "d"))


def test_dissimilarity_of_constants_by_hand() -> None:
    # No variance: 1 - (2 a b + c1) / (a^2 + b^2 + c1), c1 = (0.01 x 4)^2, for a = 1 and b = -0.5; border included.
    c1 = (0.01 * RANGE) ** 2
    values = dissimilarity(torch.ones(1, 2, 4, 4), torch.full((1, 2, 4, 4), -0.5), window=5)
    assert_close(values, torch.full((1, 2, 4, 4), 1 - (-1 + c1) / (1.25 + c1)), rtol=1e-4, atol=1e-4)


def test_dissimilarity_is_the_formula_at_a_position() -> None:
    f, g = Rng([1]).normal(1, 9, 9), Rng([2]).normal(1, 9, 9)
    line = torch.exp(-torch.arange(-2.0, 3).square() / (2 * 1.5**2))
    w = torch.outer(line, line) / torch.outer(line, line).sum()
    a, b = f[0, 0, 2:7, 2:7], g[0, 0, 2:7, 2:7]
    ma, mb = (w * a).sum(), (w * b).sum()
    va, vb, cov = (w * a * a).sum() - ma**2, (w * b * b).sum() - mb**2, (w * a * b).sum() - ma * mb
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    ssim = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    assert_close(dissimilarity(f, g, 5)[0, 0, 4, 4], 1 - ssim, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("error", ["ssim", "l2"])
def test_the_loss_is_the_mean_of_the_map_that_is_scored(error: str) -> None:
    method, b = SMALL.model_copy(update={"error": error}).build(32).eval(), batch()
    f, f_hat = method(b.images)
    terms = method.loss(b, "train", Rng([1, 2, 3, 4]))
    by_hand = (f - f_hat).square() if error == "l2" else dissimilarity(f, f_hat, 5)
    assert_close(terms["total"], by_hand.mean())
    maps = method.anomaly_map(b.images, Rng([1, 2, 3, 4]))
    assert_close(maps.mean(dim=(1, 2, 3)), by_hand.mean(dim=(1, 2, 3)), rtol=0.05, atol=0.01)


def test_training_moves_the_autoencoder_and_not_what_it_looks_at() -> None:
    method = SMALL.build(32)
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    decoder = [p.clone() for p in method.decoder.parameters()]
    state = TrainState(method, TrainingConfig(batch_size=4, images=40))
    list(train(state, Images(), 40))
    for backbone in (state.method.backbone, state.ema.backbone):
        assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not torch.equal(decoder[0], next(iter(state.method.decoder.parameters())))
    assert not any(module.training for module in method.backbone.modules()) and method.encoder.training


def test_features_are_standardised_by_what_was_seen() -> None:
    method, x = SMALL.build(32), batch().images
    for _ in range(200):
        method(x)
    f, _ = method.eval()(x)
    alive = f.std(dim=(0, 2, 3)) > 0.1
    assert alive.sum() > 3
    assert_close(f.mean(dim=(0, 2, 3)), torch.zeros(f.shape[1]), rtol=0, atol=0.05)
    assert_close(f.std(dim=(0, 2, 3))[alive], torch.ones(int(alive.sum())), rtol=0, atol=0.05)


def test_a_lesion_stands_out_after_training() -> None:
    method = SMALL.build(32)
    state = TrainState(method, TrainingConfig(batch_size=4, images=2000, ema_decay=0.9))
    list(train(state, Images(), 4 * 60))
    x = batch().images
    y = x.clone()
    y[:, :, 12:18, 12:18] = 1.0
    rng = Rng([1, 2, 3, 4])
    change = state.ema.anomaly_map(y, rng) - state.ema.anomaly_map(x, rng)
    assert change[..., 12:18, 12:18].mean() > 3 * change[..., :6, :6].abs().mean()


def test_sizes_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\b30\b.*\b8\b.*\b24\b.*\b32\b"):
        SMALL.build(30)
    enlarged = BackboneConfig(kind="random", depths=(1, 2), input_size=32)
    assert FeatureAeConfig(backbone=enlarged, widths=(8, 8)).build(28).image_size == 28
    with pytest.raises(ConfigError, match="input_size .*36 .*32 and 40"):
        FeatureAeConfig(backbone=enlarged.model_copy(update={"input_size": 36}), widths=(8, 8)).build(28)
    with pytest.raises(ValidationError):
        FeatureAeConfig(window=4)


def test_volumes_and_several_channels_have_features_too() -> None:
    method = FeatureAeConfig(backbone=RANDOM, widths=(4,)).build(8, channels=2, spatial_dims=3)
    x = Rng([1, 2]).uniform(2, 8, 8, 8)
    everything = torch.ones(2, 1, 8, 8, 8, dtype=torch.bool)
    assert torch.isfinite(method.loss(Batch(x, everything, ("a", "b")), "train", Rng([1, 2]))["total"])
    assert method.anomaly_map(x, Rng([1, 2])).shape == (2, 1, 8, 8, 8)
