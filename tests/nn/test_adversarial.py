"""Adversarial losses: penalties in closed form, and a critic that reaches the distance of two points."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.testing import assert_close

from pipeline.nn.adversarial import Generator, Judge, critic_terms, gradient_penalty, r1_penalty, said_fake, said_real
from pipeline.nn.rng import Rng


def test_the_penalty_of_a_linear_critic_and_its_gradient_in_closed_form() -> None:
    # D(x) = w x has gradient w everywhere: (|w| - 1)^2 = 16 for w = (3, 4), and its gradient is 2 (|w| - 1) w / |w|.
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    x, y = Rng([1, 2, 3]).normal(2), Rng([4, 5, 6]).normal(2)
    penalty = gradient_penalty(lambda rows: rows @ w, x, y, Rng([1, 2, 3]).uniform(1))
    assert_close(penalty, torch.full((3,), 16.0))
    assert_close(torch.autograd.grad(penalty.mean(), w)[0], 8 * torch.tensor([0.6, 0.8]))


def test_the_penalty_is_taken_between_the_pair() -> None:
    # D(x) = x^2 / 2 has gradient x: at 0.25 * 4 + 0.75 * 0 = 1 the penalty is 0, at 0.5 * 4 = 2 it is 1.
    x, y = torch.full((2, 1), 4.0), torch.zeros(2, 1)
    penalty = gradient_penalty(lambda rows: rows[:, 0].square() / 2, x, y, torch.tensor([[0.25], [0.5]]))
    assert_close(penalty, torch.tensor([0.0, 1.0]))
    with torch.no_grad():
        assert_close(gradient_penalty(lambda rows: rows[:, 0], x, y, torch.ones(2, 1)), torch.zeros(2))


def test_r1_of_a_linear_and_of_a_square_judge_in_closed_form() -> None:
    # D(x) = w x: |w|^2 = 25 and gradient 2 w. D(x) = |x|^2 / 2 has gradient x: the square of each row's own length.
    w, x = torch.tensor([3.0, 4.0], requires_grad=True), Rng([1, 2, 3]).normal(2)
    penalty = r1_penalty(lambda rows: rows @ w, x)
    assert_close(penalty, torch.full((3,), 25.0))
    assert_close(torch.autograd.grad(penalty.mean(), w)[0], 2 * w.detach())
    with torch.no_grad():
        assert_close(r1_penalty(lambda rows: rows.square().sum(dim=1) / 2, x), x.square().sum(dim=1))


def test_critic_terms_by_hand() -> None:
    w = torch.tensor([2.0])
    terms = critic_terms(lambda rows: rows @ w, torch.full((4, 1), 3.0), torch.ones(4, 1), torch.rand(4, 1), 10.0)
    assert_close(terms["wasserstein"], torch.tensor(4.0))  # 2 * 3 - 2 * 1
    assert_close(terms["total"], torch.tensor(10.0 - 4.0))  # (|2| - 1)^2 = 1


def test_said_real_and_fake_are_log_losses() -> None:
    logit = torch.tensor([0.0, 2.0, -30.0])
    p = torch.sigmoid(logit.double())
    assert_close(said_real(logit), (-p.log()).mean().float())
    assert_close(said_fake(logit), (-(1 - p).log()).mean().float(), rtol=1e-4, atol=1e-6)
    assert_close(said_real(torch.zeros(1)).item(), math.log(2))


def test_answers_do_not_depend_on_neighbours_even_in_training() -> None:
    torch.manual_seed(0)
    judge, generator = Judge(2, [1, 8, 8], 4).train(), Generator(2, 3, [8, 8, 1], 4).train()
    x, z = Rng([1, 2]).normal(1, 16, 16), Rng([1, 2]).normal(3)
    assert_close(judge(x)[:1], judge(x[:1]))
    assert_close(generator(z)[:1], generator(z[:1]))
    assert generator(z).shape == (2, 1, 16, 16) and generator(100 * z).abs().max() <= 1


def test_a_trained_critic_reaches_the_closed_form_of_two_points() -> None:
    # Real at 1, generated at -1, distance d = 2: the best slope g maximises d g - lambda (g - 1)^2, so g = 1 + d / 20
    # for lambda = 10, the estimate is d g = 2.2 (not 2: the penalty is soft), and the loss 10 * 0.1^2 - 2.2 = -2.1.
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(1, 16), nn.Softplus(), nn.Linear(16, 1, bias=False), nn.Flatten(0))
    optimiser, draw = torch.optim.Adam(critic.parameters(), lr=0.02), torch.Generator().manual_seed(1)
    x, x_tilde = torch.ones(64, 1), -torch.ones(64, 1)
    for _ in range(400):
        terms = critic_terms(critic, x, x_tilde, torch.rand(64, 1, generator=draw), 10.0)
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
    assert_close(terms["wasserstein"].item(), 2.2, rtol=0, atol=0.03)
    assert_close(terms["total"].item(), -2.1, rtol=0, atol=0.03)


def test_volumes_are_judged_and_made_too() -> None:
    judge, generator = Judge(3, [1, 4, 4], 2), Generator(3, 3, [4, 4, 1], 2)
    x = generator(Rng([1, 2]).normal(3))
    assert x.shape == (2, 1, 8, 8, 8) and judge(x).shape == (2,)
    assert torch.isfinite(gradient_penalty(judge, x, -x, torch.full((2, 1, 1, 1, 1), 0.5))).all()
