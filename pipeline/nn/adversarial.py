"""Networks and losses of generative adversarial methods: image to number, code to image, and adversarial losses.

Norms are over one image (a single group), never over a batch: the gradient penalty is defined per image (WGAN-GP,
arXiv:1704.00028, section 4), and an answer must not depend on its neighbours in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM = ("group", {"num_groups": 1})
ACT = ("leakyrelu", {"negative_slope": 0.2})


class Judge(nn.Module):
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
        super().__init__()
        levels = [_halve(spatial_dims, a, b, first=i == 0) for i, (a, b) in enumerate(pairwise(widths))]
        self.features = nn.Sequential(*levels)
        self.answer = nn.Linear(widths[-1] * grid**spatial_dims, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [B] for one output, else [B, outputs]."""
        outputs = self.answer(self.features(x).flatten(1)).float()
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs


class Generator(nn.Module):
    """Code [B, latent] -> image in [-1, 1]: a linear layer, transposed convolutions of stride 2, and tanh.

    Args:
        spatial_dims: 2 or 3.
        latent: length of the code.
        widths: channels of the first grid and of each level, then image channels.
        grid: edge of the first grid.
    """

    def __init__(self, spatial_dims: int, latent: int, widths: Sequence[int], grid: int) -> None:
        super().__init__()
        start, last = (widths[0], *[grid] * spatial_dims), len(widths) - 2
        self.start = nn.Sequential(nn.Linear(latent, math.prod(start)), nn.Unflatten(1, start), nn.LeakyReLU(0.2))
        levels = [_double(spatial_dims, a, b, last=i == last) for i, (a, b) in enumerate(pairwise(widths))]
        self.levels = nn.Sequential(*levels, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.levels(self.start(z)).float()


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
    wasserstein = (critic(x) - critic(x_tilde)).mean()
    penalty = gradient_penalty(critic, x, x_tilde, epsilon).mean()
    return {"total": weight * penalty - wasserstein, "wasserstein": wasserstein, "gradient_penalty": penalty}


def said_real(logit: Tensor) -> Tensor:
    """Return -log D, mean over rows; D is the sigmoid of the logit."""
    return F.softplus(-logit).mean()


def said_fake(logit: Tensor) -> Tensor:
    """Return -log(1 - D), mean over rows."""
    return F.softplus(logit).mean()


def _halve(spatial_dims: int, a: int, b: int, first: bool) -> nn.Module:
    from monai.networks.blocks import Convolution

    return Convolution(
        spatial_dims, a, b, strides=2, kernel_size=4, padding=1, act=ACT, norm=None if first else NORM
    )  # fmt: skip


def _double(spatial_dims: int, a: int, b: int, last: bool) -> nn.Module:
    from monai.networks.blocks import Convolution

    return Convolution(
        spatial_dims, a, b, strides=2, kernel_size=4, padding=1, output_padding=0, is_transposed=True,
        act=ACT, norm=NORM, conv_only=last,
    )  # fmt: skip
