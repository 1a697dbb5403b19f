"""`ae`: the published recipe, and a code that no information bypasses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from pipeline.methods.ae import AeConfig
from pipeline.nn.backbone import BackboneConfig
from pipeline.nn.perceptual import PerceptualConfig
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState
from pipeline.types import Batch


def test_the_recipe_has_the_published_size() -> None:
    # MedIAnomaly: 2.35 M parameters at 64 px, nearly all in the two layers between 4x4x64 = 1024 and 1024.
    count = sum(p.numel() for p in AeConfig().build(64).parameters())
    assert round(count / 1e6, 2) == 2.35


def test_the_bottom_grid_stays_small_on_larger_images() -> None:
    for size, edge in ((64, 4), (96, 6), (128, 4), (256, 4)):
        assert AeConfig().build(size).expand.unflattened_size[1:] == (edge, edge)


def test_no_more_than_the_code_passes() -> None:
    method = AeConfig(widths=(4, 8), hidden=32, latent=3).build(16).double().eval()
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(method, x).reshape(256, 256)
    assert torch.linalg.matrix_rank(jacobian, rtol=1e-9) == 3


def test_the_perceptual_term_is_added_with_its_weight_and_its_network_is_not_trained() -> None:
    features = PerceptualConfig(backbone=BackboneConfig(kind="random", depths=(1, 2)))
    values = {"widths": (4, 8), "hidden": 32, "latent": 3}
    method = AeConfig(**values, perceptual_weight=0.5, perceptual=features).build(16).eval()
    x = Rng([1, 2]).uniform(1, 16, 16, low=-1, high=1)
    terms = method.loss(Batch(x, x > -2, ("a", "b")), "train", Rng([1, 2]))
    x_hat = method(x)
    distance = method.perceptual(x, x_hat).mean()
    assert_close(terms["total"], F.mse_loss(x_hat, x) + 0.5 * distance)
    frozen = {id(p) for p in method.perceptual.parameters()}
    state = TrainState(method, TrainingConfig(batch_size=2, images=2))
    optimised = {id(p) for o in state.optimisers.values() for group in o.param_groups for p in group["params"]}
    assert frozen and not frozen & optimised
    plain = AeConfig(**values).build(16)
    assert not [name for name in plain.state_dict() if "perceptual" in name]
