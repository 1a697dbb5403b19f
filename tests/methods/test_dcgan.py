"""`dcgan`: losses by hand, the best discriminator of known densities, and what an encoder's turn leaves alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods.dcgan import Dcgan, DcganConfig
from pipeline.methods.inverted_gan import Networks
from pipeline.nn.adversarial import FeatureJudge
from pipeline.nn.rng import Rng
from pipeline.types import Batch

SMALL = DcganConfig(widths=(8, 8), latent=4)


def batch(x: Tensor) -> Batch:
    return Batch(x, torch.ones_like(x, dtype=torch.bool), tuple(str(i) for i in range(len(x))))


def images() -> Batch:
    return batch(Rng(range(4)).uniform(1, 16, 16, low=-1, high=1))


@pytest.mark.parametrize("kind", ["non-saturating", "minimax"])
def test_the_losses_by_hand(kind: str) -> None:
    method, b, rng = (
        DcganConfig(**SMALL.model_dump() | {"generator_loss": kind}).build(16).eval(),
        images(),
        Rng([1, 2]),
    )
    x_tilde = method.generator(Rng([1, 2]).normal(4))
    big_d, fake = torch.sigmoid(method.judge(b.images)), torch.sigmoid(method.judge(x_tilde))
    value = big_d.log().mean() + (1 - fake).log().mean()
    assert_close(method.loss(b, "discriminator", rng)["total"], -value)
    expected = -fake.log().mean() if kind == "non-saturating" else (1 - fake).log().mean()
    assert_close(method.loss(b, "generator", Rng([1, 2]))["total"], expected)


def test_only_the_printed_loss_starves_a_generator_that_the_discriminator_beats() -> None:
    def slope(kind: str) -> float:
        method = DcganConfig(**SMALL.model_dump() | {"generator_loss": kind}).build(16).eval()
        method.judge.answer.bias.data.fill_(-20.0)
        total = method.loss(images(), "generator", Rng([1, 2]))["total"]
        return float(torch.autograd.grad(total, method.generator.start[0].weight)[0].norm())

    # d log(1 - D) / dd = -D = -sigmoid(d), and d -log D / dd = -(1 - D): their ratio is exp(d).
    assert slope("minimax") / slope("non-saturating") == pytest.approx(math.exp(-20), rel=0.5)


def test_the_best_discriminator_of_known_densities_is_p_over_p_plus_q() -> None:
    """Images of one pixel from N(1, 0.5^2) against the generator z of N(0, 1); log p/q is a parabola."""

    class Parabola(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x.square()], dim=1).flatten(1)

    same = nn.Unflatten(1, (1, 1, 1))
    method = Dcgan(DcganConfig(latent=1), 1, 1, 2, Networks(same, FeatureJudge(Parabola(), nn.Linear(2, 1)), same))
    count = 8000
    real = batch(1 + 0.5 * torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(1)))
    z = torch.randn(count, 1, generator=torch.Generator().manual_seed(0))
    method.noise = lambda rng, bound=None: z  # type: ignore[method-assign]  # eight thousand streams take seconds
    optimiser = torch.optim.LBFGS(method.judge.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def descend() -> Tensor:
        optimiser.zero_grad()
        total = method.loss(real, "discriminator", Rng([0]))["total"]
        total.backward()
        return total

    optimiser.step(descend)
    x = torch.linspace(-2, 3, 51)
    p = (-0.5 * ((x - 1) / 0.5).square()).exp() / 0.5
    q = (-0.5 * x.square()).exp()
    with torch.no_grad():
        answer = torch.sigmoid(method.judge(x[:, None, None, None]))
    assert (answer - p / (p + q)).abs().max() < 0.03
    assert float(p.div(p + q).min()) < 0.01 and float(p.div(p + q).max()) > 0.7, "no constant comes near"


def test_the_encoder_s_turn_leaves_the_gan_and_its_statistics_alone() -> None:
    method, b = SMALL.build(16).train(), images()
    gan = {k: v.clone() for k, v in method.state_dict().items()}
    total = method.loss(b, "encoder", Rng([1, 2]))["total"]
    assert all(torch.equal(v, method.state_dict()[k]) for k, v in gan.items())
    assert method.generator.training and method.judge.training
    method.loss(b, "discriminator", Rng([1, 2]))
    assert any(not torch.equal(v, method.state_dict()[k]) for k, v in gan.items() if "running" in k)
    assert torch.autograd.grad(total, next(iter(method.encoder.parameters())))[0].abs().max() > 0


def test_truncated_noise_has_the_truncated_normal_s_moments_and_the_order_of_the_rest() -> None:
    method = DcganConfig(widths=(8, 8), latent=400).build(16)
    z, bounded = method.noise(Rng(range(50))), method.noise(Rng(range(50)), 1.0)
    # Var of N(0, 1) within [-1, 1] is 1 - 2 phi(1) / (2 Phi(1) - 1) = 0.2911.
    assert bounded.abs().max() <= 1
    assert_close(bounded.var(), torch.tensor(0.2911), rtol=0.02, atol=0)
    assert bounded.flatten()[z.flatten().argsort()].diff().min() >= 0
    assert_close(method.noise(Rng([3]), 8.0), z[3:4], rtol=0, atol=1e-4)


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan")])
def test_a_bound_that_leaves_nothing_is_refused(bound: float) -> None:
    with pytest.raises(ConfigError, match="bound"):
        SMALL.build(16).sample(Rng([1]), bound=bound)


def test_augmentation_changes_what_the_discriminator_sees_of_real_and_generated_images() -> None:
    plain, changing = (DcganConfig(**SMALL.model_dump() | {"augmentation": p}).build(16).eval() for p in (0.0, 1.0))
    changing.load_state_dict(plain.state_dict())
    b, rng = images(), Rng([1, 2, 3, 4])
    assert plain.changed(b.images, rng, "real") is b.images
    expected = -torch.nn.functional.logsigmoid(plain.judge(changing.changed(b.images, rng, "real"))).mean()
    assert_close(changing.loss(b, "discriminator", rng)["real"], expected)
    assert not torch.allclose(plain.loss(b, "discriminator", rng)["real"], expected)
    totals = [method.loss(b, "generator", rng)["total"] for method in (plain, changing)]
    assert not torch.allclose(*totals)
    assert float(torch.autograd.grad(totals[1], changing.generator.start[0].weight)[0].norm()) > 0
