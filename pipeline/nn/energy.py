"""Restoration at test time: gradient descent on an energy finds a normal image close to the scan.

One pass through encoder and decoder keeps as much of a lesion as the code can hold. The descent queries the model
repeatedly, with fixed parameters. Notation: y the scan, q(z|x) = N(mu, diag sigma^2) the encoder,
p(x|z) = N(x_hat(z), s^2 I) the decoder, p(z) the prior.

- `image` (Chen, You, Tezcan, Konukoglu, Medical Image Analysis 2020; Dehaene et al., ICLR 2020): the answer is argmin
  over x of -ELBO(x) + weight |x - y|_1, starting at x = y. A lesion costs likelihood and a change costs `weight`:
  where the scan is normal, it stays the same bit for bit.
- `latent` (AnoGAN, Schlegl et al., arXiv:1703.05921, with a prior in place of its discriminator): the answer is x_hat
  of argmin over z of -log p(y|z) - beta log p(z), starting at z = mu(y).

The energy is multiplied by s^2, so an error of e costs e^2 / 2, and `rate` and `weight` are in units of the image.
Deviations: the ELBO is taken at z = mu, so nothing is random; |x - y|_1 is handled by its proximal map (ISTA),
which is exact, in place of its subgradient (Dehaene et al.) or of a total variation (Chen et al.).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.nn.gaussian import Prior

PASSES = 3  # of one step of the descent: forward, and backward at about twice its cost

Energy = Callable[[Tensor], Tensor]  # images or codes [B, ...] -> [B], each from its own row alone
Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
Decode = Callable[[Tensor], Tensor]


class RestorationConfig(Config):
    """Configuration of the descent at test time."""

    search: Literal["image", "latent"] = Field(
        "image", description="variable of the descent: the restored image itself, or its code"
    )
    steps: int = Field(30, ge=1, description="steps of the descent; each costs about three passes")
    rate: float = Field(0.3, gt=0, description="step of the image's descent (below 2), or Adam's for the code")
    weight: float = Field(
        0.1, ge=0, description="for `image`: smallest error, on the scale [-1, 1], that justifies a change"
    )


Restoration = Annotated[
    RestorationConfig | None,
    Field(description="gradient descent at test time instead of one pass; null is off"),
]


class Searched(Protocol):
    """Fields of a method's configuration that define its energy."""

    @property
    def decoder_std(self) -> float: ...
    @property
    def beta(self) -> float: ...
    @property
    def restoration(self) -> RestorationConfig | None: ...


def normal_version(y: Tensor, encode: Encode, decode: Decode, prior: Prior, config: Searched) -> Tensor:
    """Return the normal version of y [B, C, *spatial]: x_hat(mu(y)), or the result of `restoration`.

    Args:
        y: images.
        encode: images -> mu and log sigma^2, [B, D] each.
        decode: codes [B, D] -> x_hat.
        prior: p(z).
        config: the method's configuration.
    """
    restoration, weight = config.restoration, config.decoder_std**2 * config.beta

    def minus_elbo(x: Tensor) -> Tensor:
        mu, log_variance = encode(x)
        return _half_square(x - decode(mu)) + weight * prior.divergence(mu, mu, log_variance)

    def minus_log_joint(z: Tensor) -> Tensor:
        return _half_square(y - decode(z)) - weight * prior.log_density(z)

    if restoration is not None and restoration.search == "image":
        return restored_image(y, minus_elbo, restoration)
    z, _ = encode(y)
    return decode(z if restoration is None else searched_code(z, minus_log_joint, restoration))


def restoration_passes(config: Searched) -> int:
    """Return the passes of encoder and decoder that `normal_version` takes for one image."""
    return 1 if config.restoration is None else 1 + PASSES * config.restoration.steps


def _half_square(error: Tensor) -> Tensor:
    return 0.5 * error.square().flatten(1).sum(dim=1)


def restored_image(y: Tensor, energy: Energy, config: RestorationConfig) -> Tensor:
    """Return argmin over x of energy(x) + weight |x - y|_1, by `steps` proximal gradient steps from y; no randomness.

    Args:
        y: images [B, C, *spatial].
        energy: differentiable; an error of e costs e^2 / 2.
        config: steps, rate and weight.
    """
    x, reach = y, config.rate * config.weight
    for _ in range(config.steps):
        moved = x - config.rate * _slope(energy, x) - y
        x = y + moved.sign() * (moved.abs() - reach).clamp_min(0)
    return x


def searched_code(z: Tensor, energy: Energy, config: RestorationConfig) -> Tensor:
    """Return the code [B, D] after `steps` steps of Adam on the energy from z; no randomness.

    Adam scales each number by its own history, so each row is independent of the others.
    """
    z = z.clone()
    adam = torch.optim.Adam([z], lr=config.rate)
    for _ in range(config.steps):
        z.grad = _slope(energy, z)
        adam.step()
    return z


def _slope(energy: Energy, at: Tensor) -> Tensor:
    """Return the gradient of each row's energy, even inside a no_grad block."""
    with torch.enable_grad():
        here = at.detach().requires_grad_()
        return torch.autograd.grad(energy(here).sum(), here)[0]
