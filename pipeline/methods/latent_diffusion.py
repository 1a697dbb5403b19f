"""`latent_diffusion`: diffusion in the latent space of an autoencoder, Rombach et al., arXiv:2112.10752.

Notation: E and D the codec's encoder and decoder, z = E(x) / sigma its code with the standard deviation sigma of codes
over the first batch (appendix G: "rescaled by the component-wise standard deviation", one number for all), eps the
noise, z_t the noised code. The codec is trained first: here, in the first `codec_share` of the training, or read from
a trained model and frozen. Then the denoiser learns L_LDM (eq. 2). Reconstruction: z noised to each start time,
denoised by DDIM, decoded; the mean over the start times. The saved model names a trained codec and does not contain it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.diffusion.denoiser import DenoiserConfig, UnetConfig, build_denoiser
from pipeline.diffusion.guidance import GuidanceFields
from pipeline.diffusion.noise import NoiseKind
from pipeline.diffusion.process import Process, ProcessConfig
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.methods.capabilities import Codec
from pipeline.methods.component import ComponentConfig
from pipeline.methods.composite import Composite, require_same_grid
from pipeline.nn.condition import About
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class LatentDiffusionConfig(GuidanceFields, MethodConfig, ProcessConfig):
    """Configuration of `latent_diffusion`."""

    name: Literal["latent_diffusion"] = "latent_diffusion"
    codec: ComponentConfig = Field(ComponentConfig(), description="the codec that encodes and decodes")
    codec_share: float = Field(
        0.4, gt=0, lt=1, description="share of the training used for the codec, unless it is trained already"
    )
    denoiser: DenoiserConfig = Field(
        UnetConfig(patch=1, widths=(64, 128), attention=(False, True)), description="the network: kind unet or dit"
    )
    noise: NoiseKind = Field("gaussian", description="gaussian, simplex or coarse")
    lr: float = Field(5e-4, gt=0, description="learning rate of Adam, of the denoiser")

    def components(self) -> Mapping[str, ComponentConfig]:
        """Return the codec's configuration."""
        return {"codec": self.codec}

    def _build_with(
        self, image_size: int, channels: int, spatial_dims: int, components: Mapping[str, Method]
    ) -> LatentDiffusion:
        codec = _checked(components["codec"], (image_size, channels, spatial_dims))
        shape, needed = code_shape(codec), self.denoiser.multiple
        if shape[1] == 1 < needed:
            raise ConfigError(
                f"The code of {codec.config.name} has no grid, but the grid of this denoiser "
                f"must be a multiple of {needed}. Set denoiser to {{kind: dit, patch: 1}}, or to a unet with one "
                "level: "
                "{kind: unet, patch: 1, widths: [64], attention: [false]}."
            )
        self.check_size(image_size, components)
        network = build_denoiser(self.denoiser, shape[1], shape[0], spatial_dims, self.condition_width)
        return LatentDiffusion(self.name_component("codec", codec), codec, network)

    def check_size(self, image_size: int, components: Mapping[str, Method]) -> None:
        """Check that codec and denoiser can halve the grid; a code without a grid says nothing about sizes."""
        codec = components["codec"]
        if (grid := code_shape(codec)[1]) > 1:
            multiple = self.denoiser.multiple * codec.image_size // grid
            require_size(self.name, image_size, multiple, multiple)


class LatentDiffusion(Composite):
    """x -> z -> z_t -> z_hat -> x_hat.

    Args:
        config: the configuration; its `codec` is the configuration of `codec`.
        codec: the codec; trained here unless it is frozen.
        network: the denoiser of codes.
    """

    config: LatentDiffusionConfig
    codec: Method
    sigma: Tensor
    measured: Tensor

    def __init__(self, config: LatentDiffusionConfig, codec: Method, network: nn.Module) -> None:
        super().__init__(config, codec.image_size, codec.channels, codec.spatial_dims)
        self.channels_last = codec.channels_last
        first, end = self.hold("codec", codec, config.codec, config.codec_share)
        self.network, self.conditions = network, config.build_conditions()
        self.conditional = self.conditions is not None
        own = ("network",) if self.conditions is None else ("network", "conditions")
        self.process = Process(config, code_shape(codec), limit=None)
        self.register_buffer("sigma", torch.ones(()))
        self.register_buffer("measured", torch.zeros((), dtype=torch.bool))
        self.phases = (*first, Phase("denoise", own, lr=config.lr, after=end))

    @property
    def passes(self) -> int:
        """Of the denoiser: every step of every start time, twice with guidance; the codec is not counted."""
        return len(self.config.start_times) * self.config.steps * self.config.passes_per_step

    def own_loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the denoiser's L_LDM (eq. 2)."""
        z_t, t, target = self.process.lesson(self.encode(batch.images, measure=self.training), rng)
        c = () if self.conditions is None else (self.conditions(batch.about, len(z_t), rng),)
        error = F.mse_loss(self.network(z_t, t, *c).float(), target)
        return {"total": error, self.config.prediction: error, "sigma": self.sigma}

    def encode(self, x: Tensor, measure: bool = False) -> Tensor:
        """Return z [B, D, *grid] of images, without gradients; with `measure`, set sigma at the first call."""
        with self.codec.inference():
            code = cast(Codec, self.codec).to_code(x).float()
        if measure and not self.measured:
            self.sigma.copy_(code.std().clamp_min(1e-6))
            self.measured.fill_(True)
        return code / self.sigma

    def decode(self, z: Tensor) -> Tensor:
        """Return images [B, C, *spatial] of codes z."""
        with self.codec.inference():
            return cast(Codec, self.codec).from_code(z * self.sigma)

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None, about: About = ()) -> Tensor:
        """Return the mean over `start_times` of the decoded codes; randomness comes from the row's key.

        Args:
            x: [B, C, *spatial].
            rng: one stream per row.
            body: not used.
            about: attributes of each image, for a model with conditions; () if unknown.
        """
        with self.inference():
            copies = len(self.config.start_times)
            network = self.config.towards(self.network, self.conditions, about, len(self.check(x)), copies=copies)
            z = self.process.from_starts(self.process.eps_of(network), self.encode(x), rng)
            return self.decode(z.flatten(0, 1)).reshape(len(z), *x.shape).mean(dim=0).to(x.dtype)

    def sample(
        self, rng: Rng, steps: int | None = None, eta: float = 0.0, guidance: float | None = None, about: About = ()
    ) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`.

        Args:
            rng: one stream per row.
            steps: 1 to T; None takes 50, or T if that is fewer.
            eta: 0 is DDIM, 1 the ancestral sampler, which needs most of the T steps.
            guidance: w of classifier-free guidance, at least -1; None is that of the configuration.
            about: attributes of each image, for a model with conditions; () draws from all images.

        Raises:
            ConfigError: an option out of range, attributes or guidance without conditions, or eta > 0 for a noise other
                than Gaussian.
        """
        with self.inference():
            network = self.config.towards(self.network, self.conditions, about, len(rng), guidance)
            return self.decode(self.process.draw(network, rng, steps, eta))


def code_shape(codec: Method) -> tuple[int, ...]:
    """Return the shape of one code, (D, *grid), as the codec gives it for a blank image."""
    with codec.inference():
        return tuple(cast(Codec, codec).to_code(torch.zeros(1, *codec.image_shape)).shape[1:])


def _checked(codec: Method, sizes: tuple[int, int, int]) -> Method:
    name = codec.config.name
    if not isinstance(codec, Codec):
        raise ConfigError(
            f"{name} cannot be a codec: it has no code that can be decoded. Choose one that does: ae, ae_u, vae, "
            "vampprior, vq_vae, vq_vae2, vqgan, multiscale_vq, f_anogan, alpha_gan, stylegan2, dcgan, wgan, wgan_gp, "
            "infogan or pca."
        )
    require_same_grid("codec", codec, sizes)
    return codec
