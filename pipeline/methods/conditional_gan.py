"""`conditional_gan`: a conditional GAN that recovers images: pix2pix (Isola et al., arXiv:1611.07004), and Schawinski
et al., "Generative adversarial networks recover features in astrophysical images", MNRAS Letters 467 (2017), who
trained it on images that were blurred and made noisy artificially.

Notation: x the image, y what is seen of it, m the mask of missing pixels; generator G, discriminator D = sigmoid(d),
which judges patches of x beside y. D maximises E log D(x, y) + E log(1 - D(G(y), y)); G minimises

    -E log D(G(y), y) + lambda E |x - G(y)|        (pix2pix, equation 4, non-saturating).

D asks for sharp detail that goes with y, and nobody asks whether it is true: PSNR falls, and a lesion may be invented
or lost. As a detector it restores a scan that was degraded first (`asked`).

Deviations: G is MONAI's BasicUNet and predicts a correction, x_hat = y + g(y, m), without dropout as its noise, which
pix2pix found to be ignored; D is MONAI's PatchDiscriminator.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.corruption.degrade_fields import RestorationLesson
from pipeline.methods.base import Phase
from pipeline.methods.direct_restorer import DirectRestorer, DirectRestorerConfig
from pipeline.nn.adversarial import said_fake, said_real
from pipeline.nn.rng import Rng
from pipeline.types import Batch

BETAS = (0.5, 0.999)


class ConditionalGanConfig(DirectRestorerConfig):
    """Configuration of `conditional_gan`."""

    name: Literal["conditional_gan"] = "conditional_gan"
    absolute_weight: float = Field(100.0, gt=0, description="lambda, weight of the absolute error")
    discriminator_widths: int = Field(16, ge=1, description="channels of the discriminator's first layer")
    discriminator_layers: int = Field(2, ge=1, description="its further layers; a patch is about 2^(layers + 2) pixels")
    start: float = Field(0.2, gt=0, lt=1, description="share of the training after which the discriminator takes part")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam before `start`")
    adversarial_lr: float = Field(2e-4, gt=0, description="learning rate of generator and discriminator after it")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> ConditionalGan:
        self.check_images(image_size, spatial_dims, smallest=2 ** (self.discriminator_layers + 2))
        return ConditionalGan(self, image_size, channels, spatial_dims)


class ConditionalGan(DirectRestorer):
    """Degraded image and mask in, image out, judged by a discriminator of patches."""

    config: ConditionalGanConfig

    def __init__(self, config: ConditionalGanConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        from monai.networks.nets import PatchDiscriminator

        super().__init__(config, image_size, channels, spatial_dims)
        self.discriminator = PatchDiscriminator(
            spatial_dims, config.discriminator_widths, 2 * channels + 1, num_layers_d=config.discriminator_layers
        )
        after = config.start
        self.phases = (
            Phase("regression", ("network",), config.lr, until=after),
            Phase("generator", ("network",), config.adversarial_lr, BETAS, after=after),
            Phase("discriminator", ("discriminator",), config.adversarial_lr, BETAS, after=after),
        )

    def judge(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return d(x, y), the logit of "real" of each patch."""
        return self.discriminator(torch.cat([x, seen.to(x)], dim=1))[-1].float()

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the absolute error (regression), it with -log D(G) (generator), or the discriminator's loss."""
        lesson = self.config.study(batch, rng)
        if phase == "discriminator":
            return self._discriminator_loss(lesson)
        x_hat = self(lesson.seen)
        error = F.l1_loss(x_hat, lesson.clean)
        if phase == "regression":
            return {"total": error, "absolute": error}
        adversarial = said_real(self.judge(x_hat, lesson.seen))
        total = adversarial + self.config.absolute_weight * error
        return {"total": total, "absolute": error, "adversarial": adversarial}

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the absolute error, since verdicts of a discriminator that changes cannot be compared over time."""
        return self.loss(batch, "regression", rng)

    def _discriminator_loss(self, lesson: RestorationLesson) -> dict[str, Tensor]:
        with torch.no_grad():
            x_hat = self(lesson.seen)
        real, fake = (self.judge(one, lesson.seen) for one in (lesson.clean, x_hat))
        terms = {"real": said_real(real), "fake": said_fake(fake)}
        return {"total": terms["real"] + terms["fake"], **terms}
