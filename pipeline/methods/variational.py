"""Base of variational autoencoders with a flat code z, and the fields that all of them share."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, levels_between, require_size, widths
from pipeline.nn.bottleneck import on_grid
from pipeline.nn.energy import Restoration, normal_version, restoration_passes
from pipeline.nn.gaussian import Prior, StandardNormal, gaussian_nll
from pipeline.nn.importance import importance_bound
from pipeline.nn.rng import Rng


class VariationalConfig(RepairingFields, MethodConfig):
    """Fields of every variational autoencoder with a flat code."""

    widths: tuple[int, ...] = Field((16, 32, 64, 64), min_length=2, description="channels per level, the last repeated")
    latent: int = Field(32, ge=1, description="length of the code z")
    decoder_std: float = Field(0.1, gt=0, description="standard deviation s of p(x|z), in units of the image [-1, 1]")
    beta: float = Field(1.0, ge=0, description="weight of the KL term; above 1 it is a beta-VAE")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")
    restoration: Restoration = None

    def require_size(self, image_size: int) -> None:
        """Refuse an image size that the network cannot halve often enough (ConfigError)."""
        require_size(self.name, image_size, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))

    def levels(self, image_size: int) -> list[int]:
        """Return the channels of each level, down to a grid of 4 to 7 pixels."""
        return widths(self.widths, levels_between(image_size, bottom=4, at_least=len(self.widths)))

    def terms(self, clean: Tensor, x_hat: Tensor, kl: Tensor) -> dict[str, Tensor]:
        """Return the negative ELBO with its terms in nats per image; `kl` [B] is before its weight."""
        reconstruction, divergence = gaussian_nll(clean, x_hat, self.decoder_std).mean(), kl.mean()
        return {"total": reconstruction + self.beta * divergence, "reconstruction": reconstruction, "kl": divergence}


class FlatVariational(Method):
    """Encoder q(z|x) and decoder p(x|z): MONAI's, with batch norm."""

    config: VariationalConfig

    def __init__(self, config: VariationalConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        from monai.networks.nets import VarAutoEncoder

        super().__init__(config, image_size, channels, spatial_dims)
        sizes = config.levels(image_size)
        # Instance norm, MONAI's default, would hide an image's overall brightness from the code.
        self.network = VarAutoEncoder(
            spatial_dims,
            (config.inputs(channels), *self.image_shape[1:]),
            channels,
            config.latent,
            channels=sizes,
            strides=[2] * len(sizes),
            norm="batch",
            use_sigmoid=False,
        )
        self.phases = (Phase("train", lr=config.lr),)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x), each [B, latent]."""
        mu, log_variance = self.network.encode_forward(self.config.seen(x))
        return mu.float(), log_variance.float()

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean x_hat of p(x|z)."""
        return self.network.decode_forward(z, use_sigmoid=False).float()

    def to_code(self, x: Tensor) -> Tensor:
        """Return the mean of q(z|x) on a grid of 1: [B, latent, 1, 1]."""
        return on_grid(self.encode(x)[0], self.spatial_dims)

    def from_code(self, z: Tensor) -> Tensor:
        """Return the mean of p(x|z)."""
        return self.decode(z.flatten(1))

    def prior(self) -> Prior:
        """Return p(z)."""
        return StandardNormal()

    @property
    def passes(self) -> int:
        """One, and those of `restoration`."""
        return restoration_passes(self.config)

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the decoded mean of q(z|x), or the result of `restoration`; no randomness."""
        with self.inference():
            return normal_version(self.check(x), self.encode, self.decode, self.prior(), self.config).to(x.dtype)

    def log_likelihood(self, x: Tensor, rng: Rng, samples: int = 64) -> Tensor:
        """Return a lower bound on log p(x) in nats, [B], by `samples` draws of z (`pipeline.nn.importance`)."""
        with self.inference():
            std = self.config.decoder_std
            return importance_bound(self.check(x), self.encode, self.decode, self.prior(), std, samples, rng)
