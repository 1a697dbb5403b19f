"""`ladder_vae`: its KL in closed form, and what the draws and the warm-up do."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from pipeline.corruption import LesionConfig, ShapeConfig, Tinted
from pipeline.methods.ladder_vae import LadderVae, LadderVaeConfig, StandardisedLadder
from pipeline.nn.rng import Rng
from pipeline.types import Batch

WIDTHS = (8, 8, 8, 8, 8, 8)
LESIONS = LesionConfig(healthy=0, shape=ShapeConfig(radius=(0.1, 0.2)), textures=(Tinted(contrast=(0.3, 0.8)),))


def with_posterior(mu: float, log_variance: float, **values: object) -> LadderVae:
    """Return a ladder whose every level says N(mu, exp(log_variance)), whatever the image."""
    method = LadderVaeConfig(widths=WIDTHS, lesions=LESIONS, code=(1, 1, 2, 2, 3), **values).build(32)
    with torch.no_grad():
        for layer in method.network.to_code:
            layer.conv.weight.zero_()
            middle = layer.conv.bias.numel() // 2
            layer.conv.bias[:middle], layer.conv.bias[middle:] = mu, log_variance
    return method


def test_kl_of_each_level_by_hand(batch: Batch) -> None:
    """Per element (mu^2 + sigma^2 - 1 - log sigma^2) / 2; level i has 1, 1, 2, 2, 3 channels on a grid of 32 / 2^i."""
    mu, log_variance = 0.5, math.log(0.25)
    method = with_posterior(mu, log_variance, decoder_scale=0.1)
    terms = method.loss(batch, "train", Rng(range(16)))
    each = 0.5 * (mu**2 + 0.25 - 1 - log_variance)
    nats = [each * width / 4**level for level, width in enumerate((1, 1, 2, 2, 3))]
    for level, expected in enumerate(nats):
        assert_close(terms[f"kl_{level}"], torch.tensor(expected))
    assert_close(terms["total"], terms["repair"] + 0.1 * sum(nats))


def test_the_kl_term_warms_up_over_the_steps(batch: Batch) -> None:
    method = with_posterior(0.5, 0.0, decoder_scale=1.0, warm_up=3)
    shares = []
    for _ in range(5):
        terms = method.loss(batch, "train", Rng(range(16)))
        nats = torch.stack([terms[f"kl_{level}"] for level in range(5)]).sum()
        shares.append(((terms["total"] - terms["repair"]) / nats).item())
        method.after_step("train")
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0], rel=1e-3)


@pytest.mark.slow
def test_draws_differ_and_more_of_them_come_nearer_to_their_mean(batch: Batch) -> None:
    answers = {n: with_posterior(0.0, 2.0, draws=n) for n in (1, 64)}
    x = [answers[1].reconstruct(batch.images, Rng([key] * 16)) for key in range(4)]
    many = [answers[64].reconstruct(batch.images, Rng([key] * 16)) for key in range(4)]
    assert 0 < torch.stack(many).std(dim=0).mean() < 0.3 * torch.stack(x).std(dim=0).mean()


def test_without_draws_the_mean_code_answers_and_nothing_is_random(batch: Batch) -> None:
    method = with_posterior(0.3, 2.0, draws=0, gated=False)
    first, second = (method.reconstruct(batch.images, Rng(range(start, start + 16))) for start in (0, 50))
    assert torch.equal(first, second)


def test_without_a_gate_the_image_reaches_the_answer_through_the_codes_alone(batch: Batch) -> None:
    x_hat = with_posterior(0.3, 0.0, draws=0, gated=False).reconstruct(batch.images, Rng(range(16)))
    assert torch.equal(x_hat, x_hat[:1].expand_as(x_hat))
    gated = with_posterior(0.3, 0.0, draws=0).reconstruct(batch.images, Rng(range(16))) - batch.images
    assert_close(gated, gated[:1].expand_as(gated), atol=1e-6, rtol=0)


def expecting(log_variance: float, batch: Batch, **values: object) -> tuple[LadderVae, dict[str, torch.Tensor]]:
    """Return a ladder that expects the same error everywhere, and the terms of its loss."""
    values = {"code": (1, 1, 2, 2, 3), "decoder_scale": 0.1, "draws": 0} | values
    method = LadderVaeConfig(widths=WIDTHS, lesions=LESIONS, **values).build(32).model
    with torch.no_grad():
        final = method.network.network.final_conv
        final.weight[-1], final.bias[-1] = 0, log_variance
    return method, method.loss(batch, "train", Rng(range(16)))


@pytest.mark.parametrize("gated", [True, False])
def test_with_a_variance_the_likelihood_takes_the_place_of_the_absolute_error(gated: bool, batch: Batch) -> None:
    """b/2 (exp(-s) e^2 + s): e^2 follows from two values of s, and must not depend on s."""
    squares = []
    for s in (0.0, -2.0):
        _, terms = expecting(s, batch, gated=gated, variance="everywhere")
        squares.append((terms["likelihood"] / 0.05 - s) * math.exp(s))
        mask = terms["cross_entropy"] + terms["dice"] if gated else 0
        assert_close(terms["repair"], terms["likelihood"] + mask)
    assert squares[0] > 0
    assert_close(squares[0], squares[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("variance", "learns"), [("healthy", False), ("everywhere", True)])
def test_the_healthy_variance_does_not_learn_from_painted_pixels(variance: str, learns: bool, batch: Batch) -> None:
    method, _ = expecting(-1.0, batch, variance=variance)
    lesson = method.config.lesson(batch, Rng(range(16)))
    s = torch.zeros_like(batch.images, requires_grad=True)
    method._likelihood(batch.images, s, lesson)["likelihood"].backward()
    assert (s.grad[lesson.painted.mask & lesson.body] != 0).any() == learns
    assert (s.grad[~lesson.painted.mask & lesson.body] != 0).all()


def test_the_map_is_the_error_in_units_of_what_is_expected(batch: Batch) -> None:
    method, _ = expecting(math.log(0.25), batch, variance="healthy")
    maps = StandardisedLadder(method).anomaly_map(batch.images, Rng(range(16)))
    assert_close(maps, (method.reconstruct(batch.images, Rng(range(16))) - batch.images).abs() / 0.5)
