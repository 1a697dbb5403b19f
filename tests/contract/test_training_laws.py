"""Laws of `loss` and `phases` over every registered method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.method_registry import build_method
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

WITHOUT_CHANCE = {"pca"}  # built without random weights: `finish` gives them all
STEPS = 120  # within which a few images are learnt by heart


@pytest.fixture
def trained(method: Method) -> Method:
    """Skip methods that have nothing to train: `finish` fits them."""
    if not method.phases:
        pytest.skip("has no phase")
    return method


def test_phases_have_names_of_their_own_and_leave_no_parameter_out(method: Method) -> None:
    names = [phase.name for phase in method.phases]
    assert len(set(names)) == len(names)
    assert names or type(method).finish is not Method.finish
    reached = {id(p) for phase in method.phases for p in method.parameters_of(phase)}
    assert reached == {id(p) for p in method.parameters() if p.requires_grad}


def test_loss_is_named_finite_scalars_with_a_total(method: Method, batch: Batch) -> None:
    for phase in method.phases:
        terms = method.loss(batch, phase.name, Rng.training(0, 0, 4))
        assert "total" in terms and len(terms) > 1
        for name, value in terms.items():
            assert value.ndim == 0 and torch.isfinite(value), name


def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_images(method: Method, batch: Batch) -> None:
    method.eval()
    for phase in method.phases:
        whole = method.loss(batch, phase.name, Rng.training(3, 40, 4))["total"]
        alone = [
            method.loss(_row(batch, i), phase.name, Rng.training(3, 40 + i, 1))["total"] for i in range(len(batch.ids))
        ]
        assert_close(torch.stack(alone).mean(), whole, rtol=1e-4, atol=1e-6)


def test_the_loss_leaves_the_global_generator_alone(trained: Method, batch: Batch) -> None:
    before = torch.get_rng_state()
    trained.loss(batch, trained.phases[0].name, Rng.training(0, 0, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_reach_every_parameter_of_the_phase(
    trained: Method, batch: Batch, as_data: Callable[[Batch], Any]
) -> None:
    method = trained
    # Two steps of each stage first: layers that start at zero on purpose (the last of a diffusion U-Net) block the way.
    images = 8 * len({phase.after for phase in method.phases})
    state = TrainState(method, TrainingConfig(batch_size=4, images=images))
    list(train(state, as_data(batch), images))
    for phase in method.phases:
        total = method.loss(batch, phase.name, Rng.training(0, 100, 4))["total"]
        named = {id(p): name for name, p in method.named_parameters()}
        parameters = method.parameters_of(phase)
        for p, gradient in zip(parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True):
            assert gradient is not None, named[id(p)]
            assert torch.isfinite(gradient).all() and gradient.abs().max() > 0, named[id(p)]


def test_a_few_images_can_be_learnt_by_heart(trained: Method, batch: Batch, as_data: Callable[[Batch], Any]) -> None:
    if type(trained).validation is not Method.validation:  # its losses compete; what it is judged by must fall
        _judged_better(trained, batch, as_data(batch))
        return
    state, totals = TrainState(trained, TrainingConfig(batch_size=4, images=10_000, ema_decay=0.9)), []
    for record in train(state, as_data(batch), 4 * STEPS):
        totals.append(float(record.terms["total"]))
        if len(totals) >= 25 and sum(totals[-20:]) / 20 < 0.6 * sum(totals[:5]) / 5:
            return  # most need a fraction of the steps
    pytest.fail(f"the loss fell from {totals[:5]} to {totals[-20:]} only")


def _judged_better(method: Method, batch: Batch, data: Any) -> None:
    last, rng = method.phases[-1].name, Rng.scoring(0, batch.ids)
    state = TrainState(method, TrainingConfig(batch_size=4, images=4 * STEPS, ema_decay=0.9))
    before = float(state.ema.validation(batch, last, rng)["total"])
    list(train(state, data, 4 * STEPS))
    assert float(state.ema.validation(batch, last, rng)["total"]) < 0.6 * before


def test_building_twice_from_one_seed_gives_the_same_weights(config: MethodConfig) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, third = (build_method(config, 32, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    states = [list(built.state_dict().values()) for built in (first, second, third)]
    pairs = list(zip(*states, strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert config.name in WITHOUT_CHANCE or not all(torch.equal(a, c) for a, _, c in pairs)


def _row(batch: Batch, i: int) -> Batch:
    row = slice(i, i + 1)
    return Batch(batch.images[row], batch.body[row], batch.ids[row], batch.about[row])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_precisions_train(trained: Method, batch: Batch, as_data: Callable[[Batch], Any], precision: str) -> None:
    state = TrainState(trained, TrainingConfig(batch_size=4, images=8, precision=precision))
    assert [record.images_seen for record in train(state, as_data(batch), 8)] == [4, 8]
    assert all(p.dtype == torch.float32 for p in trained.parameters())
