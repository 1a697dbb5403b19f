"""`cycle_gan`: translation between two domains without pairs, CycleGAN (Zhu et al., arXiv:1703.10593).

Notation of the paper: x from domain X, y from domain Y, which belong to no common patient; mappings G: X -> Y and
F: Y -> X; discriminators D_X and D_Y. The full objective (equation 3) is

    L(G, F, D_X, D_Y) = L_GAN(G, D_Y, X, Y) + L_GAN(F, D_X, Y, X) + lambda L_cyc(G, F),
    L_cyc(G, F) = E |F(G(x)) - x| + E |G(F(y)) - y|                                     (equation 2),

with least squares instead of equation 1's logarithms (section 4): G minimises E (D_Y(G(x)) - 1)^2, and D_Y minimises
E (D_Y(y) - 1)^2 + E D_Y(G(x))^2, halved; likewise F and D_X. The identity term E |G(y) - y| + E |F(x) - x| (section
5.2) has half the weight of the cycle. Discriminators learn from a pool of 50 generated images.

Nothing here asks that a lesion be kept: what Y never shows may vanish, and what it often shows may be invented (Cohen
et al., arXiv:1805.08841). So a task measures both, with a detector and the truth. Without a second domain
(`Batch.target` is None) X are normal images with painted lesions, "unknown", and Y normal ones: G removes what makes an
image unusual, and the method is a detector.

Deviations: G and F are MONAI's BasicUNet and predict corrections, G(x) = x + g(x), instead of residual networks with
tanh; D is MONAI's PatchDiscriminator with norms over one image; the EMA weights are kept. The pool serves the training
only, and is emptied afterwards, so that no image travels with the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.corruption.painting import PaintingFields
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.adversarial import ONE_IMAGE
from pipeline.nn.image_pool import ImagePool
from pipeline.nn.rng import Rng
from pipeline.nn.unet import UNetFields
from pipeline.types import Batch

BETAS = (0.5, 0.999)
UNKNOWN, NORMAL = "unknown", "normal"


class CycleGanConfig(UNetFields, MethodConfig):
    """Configuration of `cycle_gan`."""

    unpaired: ClassVar[bool] = True

    name: Literal["cycle_gan"] = "cycle_gan"
    domains: tuple[str, str] | None = Field(
        None, description='names of X and Y; null: those of the task that trains it, and "unknown" and "normal" without'
    )
    painting: PaintingFields = Field(
        PaintingFields(), description="lesions painted on normal images where there is no second domain"
    )
    cycle_weight: float = Field(10.0, gt=0, description="lambda, weight of the cycle term")
    identity_weight: float = Field(5.0, ge=0, description="weight of the identity term; half of lambda in the paper")
    pool: int = Field(50, ge=0, le=10_000, description="generated images that the discriminators' pool holds; 0: none")
    discriminator_widths: int = Field(16, ge=1, description="channels of the discriminators' first layer")
    discriminator_layers: int = Field(2, ge=1, description="further layers; a patch is about 2^(layers + 2) pixels")
    lr: float = Field(2e-4, gt=0, description="learning rate of Adam")

    @property
    def domain_names(self) -> tuple[str, str]:
        """Names of X and Y."""
        return self.domains or (UNKNOWN, NORMAL)

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> CycleGan:
        require_size(self.name, image_size, self.multiple, max(2 * self.multiple, 2 ** (self.discriminator_layers + 2)))
        if len(set(self.domain_names)) < 2:
            raise ConfigError(
                f"cycle_gan was asked to translate {self.domain_names[0]!r} into itself. Name two different domains."
            )
        return CycleGan(self, image_size, channels, spatial_dims)


class Correcting(nn.Module):
    """An image with a network's correction added: x + g(x)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return x.float() + self.network(x).float()


class CycleGan(Method):
    """X -> Y and Y -> X, each judged by a discriminator of patches."""

    config: CycleGanConfig
    channels_last = True

    def __init__(self, config: CycleGanConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.to_y, self.to_x = (Correcting(config.unet(spatial_dims, channels, channels)) for _ in range(2))
        self.judge_y, self.judge_x = (_judge(config, channels, spatial_dims) for _ in range(2))
        self.pool_y, self.pool_x = (ImagePool(config.pool, self.image_shape) for _ in range(2))
        self.phases = (
            Phase("generators", ("to_y", "to_x"), config.lr, BETAS),
            Phase("discriminators", ("judge_y", "judge_x"), config.lr, BETAS),
        )

    @property
    def domains(self) -> tuple[str, str]:
        """Names of X and Y."""
        return self.config.domain_names

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return what G and F minimise, or D_X and D_Y, with its terms; see the module."""
        x, y = self._sides(batch, rng)
        return self._discriminator_loss(x, y, rng) if phase == "discriminators" else self._generator_loss(x, y)

    def _sides(self, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor]:
        """Return the images of X and Y: those of the batch and its targets, or painted and normal ones."""
        if batch.target is not None:
            return batch.images.float(), batch.target.float()
        lesson = self.config.painting.lesson(batch, rng.fork("painting"))
        return lesson.painted.images.float(), lesson.clean.float()

    def _generator_loss(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        fake_y, fake_x = self.to_y(x), self.to_x(y)
        terms = {
            "adversarial": _least_squares(self.judge_y, fake_y, 1) + _least_squares(self.judge_x, fake_x, 1),
            "cycle": F.l1_loss(self.to_x(fake_y), x) + F.l1_loss(self.to_y(fake_x), y),
            "identity": F.l1_loss(self.to_y(y), y) + F.l1_loss(self.to_x(x), x),
        }
        weighted = self.config.cycle_weight * terms["cycle"] + self.config.identity_weight * terms["identity"]
        return {"total": terms["adversarial"] + weighted, **terms}

    def _discriminator_loss(self, x: Tensor, y: Tensor, rng: Rng) -> dict[str, Tensor]:
        with torch.no_grad():
            fake_y, fake_x = self.to_y(x), self.to_x(y)
        if self.training:
            fake_y = self.pool_y.exchange(fake_y, rng.fork("pool of Y"))
            fake_x = self.pool_x.exchange(fake_x, rng.fork("pool of X"))
        real = _least_squares(self.judge_y, y, 1) + _least_squares(self.judge_x, x, 1)
        fake = _least_squares(self.judge_y, fake_y, 0) + _least_squares(self.judge_x, fake_x, 0)
        return {"total": (real + fake) / 2, "real": real, "fake": fake}

    def finish(self, batches: Iterable[Batch]) -> None:
        """Empty the pools."""
        self.pool_y.empty()
        self.pool_x.empty()

    def translate(self, x: Tensor, to: str, rng: Rng) -> Tensor:
        """Return x as an image of the domain `to`, [B, C, *spatial]; no randomness.

        Raises:
            ConfigError: the domain is neither X nor Y.
        """
        if to not in self.domains:
            raise ConfigError(
                f"This cycle_gan translates between {' and '.join(self.domains)}, not to {to!r}. Choose one of these."
            )
        network = self.to_y if to == self.domains[1] else self.to_x
        with self.inference():
            return network(self.check(x)).to(x.dtype)

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x as an image of Y, where normal ones are; no randomness."""
        return self.translate(x, self.domains[1], rng)


def _judge(config: CycleGanConfig, channels: int, spatial_dims: int) -> nn.Module:
    from monai.networks.nets import PatchDiscriminator

    return PatchDiscriminator(
        spatial_dims, config.discriminator_widths, channels, num_layers_d=config.discriminator_layers, norm=ONE_IMAGE
    )


def _least_squares(judge: nn.Module, images: Tensor, goal: float) -> Tensor:
    """Return E (D - goal)^2 over the patches of all images."""
    return (judge(images)[-1].float() - goal).square().mean()
