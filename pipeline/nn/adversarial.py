"""Networks and losses of generative adversarial methods: image to number, code to image, and adversarial losses.

Norms are over one image (a single group); a generator may have batch norm, whose statistics of a batch serve in
training only. A gradient penalty is defined per image, so a critic must not have it (arXiv:1704.00028, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.nn.rng import Rng

Norm = str | tuple[str, dict[str, Any]]  # as MONAI names it

ONE_IMAGE: Norm = ("group", {"num_groups": 1})
BATCH: Norm = "batch"
ACT = ("leakyrelu", {"negative_slope": 0.2})


class FeatureJudge(nn.Module):
    """x -> one number (critic, discriminator) or one code (encoder): a linear `answer` on the flat `features`."""

    def __init__(self, features: nn.Module, answer: nn.Linear) -> None:
        super().__init__()
        self.features = features
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [B] for one output, else [B, outputs]."""
        outputs = self.answer(self.features(x).flatten(1)).float()
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs


class Judge(FeatureJudge):
    """Image -> one number (critic, discriminator) or one code (encoder), by strided convolutions and a linear layer.

    Args:
        spatial_dims: 2 or 3.
        widths: image channels, then those of each level.
        grid: edge of the last grid.
        outputs: 1, or the length of the code.
        bias: whether the linear layer has a bias; a critic needs no bias, since only differences of its outputs matter.
    """

    def __init__(
        self, spatial_dims: int, widths: Sequence[int], grid: int, outputs: int = 1, bias: bool = True
    ) -> None:
        norms = [None, *[ONE_IMAGE] * (len(widths) - 2)]
        levels = [_halve(spatial_dims, a, b, norm=n) for n, (a, b) in zip(norms, pairwise(widths), strict=True)]
        features = nn.Sequential(*levels)
        super().__init__(features, nn.Linear(widths[-1] * grid**spatial_dims, outputs, bias=bias))


class Generator(nn.Module):
    """Code [B, latent] -> image in [-1, 1]: a linear layer, transposed convolutions of stride 2, and tanh.

    Args:
        spatial_dims: 2 or 3.
        latent: length of the code.
        widths: channels of the first grid and of each level, then image channels.
        grid: edge of the first grid.
        norm: of every level but the last; batch norm also follows the linear layer.
    """

    def __init__(
        self, spatial_dims: int, latent: int, widths: Sequence[int], grid: int, norm: Norm = ONE_IMAGE
    ) -> None:
        super().__init__()
        start, norms = (widths[0], *[grid] * spatial_dims), [*[norm] * (len(widths) - 2), None]
        first = [_batch_norm(spatial_dims, widths[0])] if norm == BATCH else []
        linear = nn.Linear(latent, math.prod(start), bias=not first)
        self.start = nn.Sequential(linear, nn.Unflatten(1, start), *first, nn.LeakyReLU(0.2))
        levels = [_double(spatial_dims, a, b, norm=n) for n, (a, b) in zip(norms, pairwise(widths), strict=True)]
        self.levels = nn.Sequential(*levels, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.levels(self.start(z)).float()


@contextmanager
def resting(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode for a while, so that a network that another one is trained against stays as it is."""
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)


def wasserstein(critic: Callable[[Tensor], Tensor], x: Tensor, x_tilde: Tensor) -> Tensor:
    """Return E D(x) - E D(x_tilde): with the best D of Lipschitz constant 1, the distance between the two
    distributions (arXiv:1701.07875, eq. 2).
    """
    return (critic(x) - critic(x_tilde)).mean()


@torch.no_grad()
def clip_weights(module: nn.Module, limit: float) -> None:
    """Clip every parameter to [-limit, limit] (arXiv:1701.07875, algorithm 1, line 7)."""
    for parameter in module.parameters():
        parameter.clamp_(-limit, limit)


def between(x: Tensor, rng: Rng) -> Tensor:
    """Return the epsilon of each row, uniform in [0, 1): [B, 1, ...] with the dimensions of x."""
    return rng.uniform(*[1] * (x.ndim - 1))


def gradient_penalty(critic: Callable[[Tensor], Tensor], x: Tensor, x_tilde: Tensor, epsilon: Tensor) -> Tensor:
    """Return the penalty of each pair, float32 [B], differentiable with respect to the critic.

    (|grad D(x_hat)| - 1)^2 at x_hat = epsilon x + (1 - epsilon) x_tilde; arXiv:1704.00028, equation 3 and algorithm 1.

    Args:
        critic: D, one number per row, computed from that row alone.
        x, x_tilde: real and generated rows.
        epsilon: [B, 1, ...] in [0, 1].
    """
    with torch.enable_grad():
        x_hat = (epsilon * x + (1 - epsilon) * x_tilde).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
        return (gradient.float().flatten(1).norm(dim=1) - 1).square()


def critic_terms(
    critic: Callable[[Tensor], Tensor], x: Tensor, x_tilde: Tensor, epsilon: Tensor, weight: float
) -> dict[str, Tensor]:
    """Return the critic's loss and its terms: E D(x_tilde) - E D(x) + weight E penalty (arXiv:1704.00028, equation 3).

    `wasserstein` is E D(x) - E D(x_tilde), the critic's estimate of the distance.
    """
    distance, penalty = wasserstein(critic, x, x_tilde), gradient_penalty(critic, x, x_tilde, epsilon).mean()
    return {"total": weight * penalty - distance, "wasserstein": distance, "gradient_penalty": penalty}


def r1_penalty(judge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return |grad D(x)|^2 of each row, float32 [B], differentiable with respect to the judge.

    On real images only: R1 of Mescheder et al., arXiv:1801.04406, equation 9, without its gamma / 2.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(judge(x).sum(), x, create_graph=True)
        return gradient.float().flatten(1).square().sum(dim=1)


def said_real(logit: Tensor) -> Tensor:
    """Return -log D, mean over rows; D is the sigmoid of the logit."""
    return F.softplus(-logit).mean()


def said_fake(logit: Tensor) -> Tensor:
    """Return -log(1 - D), mean over rows."""
    return F.softplus(logit).mean()


def _halve(spatial_dims: int, a: int, b: int, norm: Norm | None) -> nn.Module:
    from monai.networks.blocks import Convolution

    return Convolution(
        spatial_dims, a, b, strides=2, kernel_size=4, padding=1, act=ACT, norm=norm
    )  # fmt: skip


def _double(spatial_dims: int, a: int, b: int, norm: Norm | None) -> nn.Module:
    """Return a level of a generator; the last one, without a norm, is linear."""
    from monai.networks.blocks import Convolution

    return Convolution(
        spatial_dims, a, b, strides=2, kernel_size=4, padding=1, output_padding=0, is_transposed=True,
        act=ACT, norm=norm, conv_only=norm is None, bias=norm != BATCH,
    )  # fmt: skip


def _batch_norm(spatial_dims: int, channels: int) -> nn.Module:
    return (nn.BatchNorm2d if spatial_dims == 2 else nn.BatchNorm3d)(channels)
