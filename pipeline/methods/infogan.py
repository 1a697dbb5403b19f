"""`infogan`: a GAN with codes that say what it makes, learned without labels, arXiv:1606.03657.

Notation of the paper: noise z, code c = (one category of K, uniform; continuous numbers, uniform in [-1, 1]), generator
G(z, c), discriminator D, recogniser Q(c|x), which shares the layers of D. Equation 6,

    min over G and Q, max over D: V(D, G) - lambda L_I(G, Q),   L_I = E log Q(c|G(z, c)) + H(c) <= I(c; G(z, c)),

where L_I is the bound of equation 5 and the terms `category` and `continuous` are its two parts in nats. Q of the
category is a softmax, Q of each number a Gaussian with the standard deviation `code_std`. G takes the non-saturating
loss of `dcgan`. D's turn also trains Q, and its shared layers with it, as in the authors' code. An encoder inverts the
generator (`inverted_gan`).

Deviations: z is Gaussian, leaky ReLU in the generator, torch's initial weights, norms over one image in D (as in
`dcgan`); the EMA weights are kept.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.methods.base import Phase
from pipeline.methods.inverted_gan import DISCRIMINATOR_BETAS, InvertedGanConfig, Networks, RegeneratingGan
from pipeline.nn.adversarial import BATCH, Norm, said_fake, said_real
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between


class InfoGanConfig(InvertedGanConfig):
    """Configuration of `infogan`."""

    generator_norm: ClassVar[Norm] = BATCH

    name: Literal["infogan"] = "infogan"
    categories: int = Field(10, ge=2, description="K, values of the category")
    continuous: int = Field(2, ge=0, description="continuous numbers of the code")
    category_weight: float = Field(1.0, ge=0, description="lambda of the category's part of the bound")
    continuous_weight: float = Field(0.1, ge=0, description="lambda of the continuous part of the bound")
    code_std: float = Field(0.3, gt=0, description="standard deviation of Q of each continuous number")
    hidden: int = Field(128, ge=1, description="width of the layer of Q behind the layers of D")

    @property
    def code_length(self) -> int:
        """Length of the generator's input: z, the category as K numbers, the continuous numbers."""
        return self.latent + self.categories + self.continuous

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> InfoGan:
        return InfoGan(self, image_size, channels, spatial_dims, self.networks(image_size, channels, spatial_dims))


class InfoGan(RegeneratingGan):
    """(z, c) -> x by a generator, x -> c by a recogniser, x -> (z, c) by an encoder."""

    config: InfoGanConfig

    def __init__(
        self, config: InfoGanConfig, image_size: int, channels: int, spatial_dims: int, networks: Networks
    ) -> None:
        super().__init__(config, image_size, channels, spatial_dims, networks)
        self.recogniser = nn.Sequential(
            nn.Linear(networks.judge.answer.in_features, config.hidden), nn.LeakyReLU(0.2),
            nn.Linear(config.hidden, config.categories + config.continuous),
        )  # fmt: skip
        until = config.gan_share
        self.phases = (
            Phase("discriminator", ("judge", "recogniser"), config.lr, DISCRIMINATOR_BETAS, until=until),
            Phase("generator", ("generator",), config.lr, DISCRIMINATOR_BETAS, until=until),
            config.encoder_phase(),
        )

    def gan_terms(self, x: Tensor, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the loss of D and Q or that of G (equation 6), and its terms."""
        z, category, continuous = self.noise(rng), *self.draw_code(rng)
        code = self._joined(z, category, continuous)
        fake = self.fake(code) if phase == "discriminator" else self.generator(code)
        d, q = self._judged(self.changed(fake, rng, "fake"))
        bound = self.information(q, category, continuous)
        weighted = self.config.category_weight * bound["category"] + self.config.continuous_weight * bound["continuous"]
        if phase == "discriminator":
            terms = {"real": said_real(self.judge(self.changed(x, rng, "real"))), "fake": said_fake(d)}
            return {"total": terms["real"] + terms["fake"] - weighted, **terms, **bound}
        return {"total": said_real(d) - weighted, "judged": d.mean(), **bound}

    def information(self, q: Tensor, category: Tensor, continuous: Tensor) -> dict[str, Tensor]:
        """Return the two parts of L_I (equation 5) in nats, means over the rows.

        Args:
            q: output of Q [B, K + n]: logits of the category, then the means of the continuous numbers.
            category: int64 [B].
            continuous: [B, n] in [-1, 1].
        """
        k, std = self.config.categories, self.config.code_std
        log_q = -F.cross_entropy(q[:, :k], category)
        log_density = -0.5 * ((continuous - q[:, k:]) / std).square() - math.log(std * math.sqrt(2 * math.pi))
        entropies = math.log(k), self.config.continuous * math.log(2)
        return {"category": log_q + entropies[0], "continuous": log_density.sum(dim=1).mean() + entropies[1]}

    def draw_code(self, rng: Rng) -> tuple[Tensor, Tensor]:
        """Return a category int64 [B] and continuous numbers [B, n] from their uniform distributions."""
        return rng.integers(0, self.config.categories), rng.uniform(self.config.continuous, low=-1, high=1)

    def embed(self, x: Tensor) -> Tensor:
        """Return Q(c|x): the probability of each category, then the continuous means, float32 [B, K + n]."""
        with self.inference():
            q = self._judged(self.check(x))[1]
            return torch.cat([q[:, : self.config.categories].softmax(dim=1), q[:, self.config.categories :]], dim=1)

    def sample(
        self,
        rng: Rng,
        bound: float | None = None,
        category: int | None = None,
        number: float | None = None,
        place: int = 0,
    ) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`: G(z, c).

        Args:
            rng: one stream per row.
            bound: largest |z|; None leaves it unbounded.
            category: the category of every image, 0 to K - 1; None draws one per image.
            number: one continuous number of every image, in [-1, 1]; None draws it too. The others are drawn.
            place: which of them, from 0.

        Raises:
            ConfigError: a value out of range.
        """
        self._require(category, number, place)
        z, categories, numbers = self.noise(rng, bound), *self.draw_code(rng)
        if category is not None:
            categories = torch.full_like(categories, category)
        if number is not None:
            numbers[:, place] = number
        with self.inference():
            return self.generator(self._joined(z, categories, numbers))

    def _require(self, category: int | None, number: float | None, place: int) -> None:
        if category is not None:
            require_between("category", category, 0, self.config.categories - 1)
        if number is not None:
            require_between("number", number, -1, 1)
        if number is not None or place:
            require_between("place", place, 0, self.config.continuous - 1)

    def _joined(self, z: Tensor, category: Tensor, continuous: Tensor) -> Tensor:
        return torch.cat([z, F.one_hot(category, self.config.categories).to(z), continuous], dim=1)

    def _judged(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return D's logit [B] and Q's output [B, K + n], from the layers that they share."""
        features = self.judge.features(x).flatten(1)
        return self.judge.answer(features).float()[:, 0], self.recogniser(features).float()
