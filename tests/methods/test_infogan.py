"""`infogan`: the bound reaches the known information of a noisy channel, and codes rule what is sampled."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods.infogan import InfoGan, InfoGanConfig
from pipeline.methods.inverted_gan import Networks
from pipeline.nn.adversarial import FeatureJudge
from pipeline.nn.rng import Rng
from pipeline.types import Batch

K, STD, ROWS = 4, 0.2, 600
SMALL = InfoGanConfig(widths=(8, 8), latent=4, categories=3, hidden=8)


class Channel(nn.Module):
    """A generator that shows the category, wrongly if z > 1, and the noisy continuous number: 1 x (K + 1) pixels."""

    def forward(self, code: Tensor) -> Tensor:
        z, category, number = code[:, :2], code[:, 2 : 2 + K], code[:, 2 + K :]
        wrong = (z[:, :1] > 1).to(code)  # the next category instead
        image = (1 - wrong) * category + wrong * category.roll(1, dims=1)
        return torch.cat([image, number + STD * z[:, 1:]], dim=1)[:, None, None]


def channel() -> InfoGan:
    config = InfoGanConfig(latent=2, categories=K, continuous=1, continuous_weight=1.0, code_std=STD, hidden=32)
    judge = FeatureJudge(nn.Flatten(), nn.Linear(K + 1, 1))
    torch.manual_seed(0)
    return InfoGan(config, 1, 1, 2, Networks(Channel(), judge, nn.Flatten()))


def test_the_bound_reaches_the_information_of_a_channel_and_does_not_pass_it() -> None:
    method = channel()
    optimiser = torch.optim.Adam(method.recogniser.parameters(), lr=0.01)
    x = torch.zeros(ROWS, 1, 1, K + 1)
    batch = Batch(x, x.bool(), tuple(str(i) for i in range(ROWS)))
    for step in range(150):
        terms = method.loss(batch, "discriminator", Rng(range(step % 5 * ROWS, (step % 5 + 1) * ROWS)))
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
    rng = Rng(range(9 * ROWS, 14 * ROWS))
    fresh = {k: float(v.detach()) for k, v in method.loss(batch, "discriminator", rng).items()}
    wrong = 0.5 * math.erfc(1 / math.sqrt(2))  # P(z > 1): H(c) - H(c|x) is log K minus the entropy of the error
    exact = math.log(K) + wrong * math.log(wrong) + (1 - wrong) * math.log(1 - wrong)
    assert fresh["category"] == pytest.approx(exact, abs=0.06)
    # The number plus N(0, s^2): I = h(x) - h(noise), with the density of x integrated on a grid.
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    p = 0.5 * (torch.special.ndtr((grid + 1) / STD) - torch.special.ndtr((grid - 1) / STD))
    entropy = -float(torch.trapezoid(torch.xlogy(p, p), grid))
    exact = entropy - math.log(STD * math.sqrt(2 * math.pi * math.e))
    assert exact - 0.12 < fresh["continuous"] < exact + 0.02, "Gaussian Q of a fixed width loses a little at the ends"


def test_the_bound_of_an_ignorant_and_of_a_perfect_recogniser() -> None:
    method = channel()
    category, number = torch.tensor([0, 1, 2, 3]), torch.tensor([[-1.0], [-0.5], [0.5], [1.0]])
    ignorant = method.information(torch.zeros(4, K + 1), category, number)
    assert_close(ignorant["category"], torch.tensor(0.0))
    perfect = method.information(torch.cat([100 * F.one_hot(category, K), number], dim=1), category, number)
    assert_close(perfect["category"], torch.tensor(math.log(K)))
    assert_close(perfect["continuous"], torch.tensor(math.log(2) - math.log(STD * math.sqrt(2 * math.pi))))


def test_the_losses_are_equation_6() -> None:
    method = SMALL.build(16).eval()
    x = Rng(range(2)).uniform(1, 16, 16, low=-1, high=1)
    batch = Batch(x, x.bool(), ("a", "b"))
    z = Rng([1, 2])
    code = method._joined(z.normal(4), category := z.integers(0, 3), number := z.uniform(2, low=-1, high=1))
    x_tilde = method.generator(code)
    d = torch.sigmoid(method.judge(x_tilde))
    bound = method.information(method.recogniser(method.judge.features(x_tilde).flatten(1)), category, number)
    bound_total = bound["category"] + 0.1 * bound["continuous"]
    value = torch.sigmoid(method.judge(x)).log().mean() + (1 - d).log().mean()
    assert_close(method.loss(batch, "discriminator", Rng([1, 2]))["total"], -value - bound_total)
    assert_close(method.loss(batch, "generator", Rng([1, 2]))["total"], -d.log().mean() - bound_total)


def test_codes_rule_the_sample_and_the_noise_stays() -> None:
    method = SMALL.build(16)
    first, second = (method.sample(Rng([5, 6]), category=k, number=0.5) for k in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, method.sample(Rng([5, 6]), category=0, number=0.5))
    assert not torch.equal(first, method.sample(Rng([5, 6]), category=0, number=0.5, place=1))
    embedded = method.embed(first)
    assert embedded.shape == (2, 5)
    assert_close(embedded[:, :3].sum(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    "values", [{"category": 3}, {"category": -1}, {"number": 1.5}, {"place": 2, "number": 0.0}, {"bound": 0}]
)
def test_codes_out_of_range_are_refused(values: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        SMALL.build(16).sample(Rng([1]), **values)
