"""`controlnet`: a frozen diffusion model that draws what a picture asks for: edges, or the mask of a lesion.

Zhang, Rao and Agrawala, arXiv:2302.05543. Notation: x the image, x_t the noisy one, c the control; eps_theta is the
frozen `ddpm` with the encoder's copy beside it (`pipeline.diffusion.control`). Only the copy learns:

    L = E || eps - eps_theta(x_t, t, c) ||^2          (eq. 5, without a prompt; or the error of x_0 or v)

Edges are those of the image itself: where its smoothed gradient exceeds `edge`. With `control: lesion`, the run names
labelled slices (`masks`), whose masks are the control; normal images have an empty one, so that the empty mask comes to
mean "no lesion". In a share `drop` of the images edges are hidden, and none of a sample's edges are then requested.
The base learns here first, in the first `base_share` of the training, or is a trained model.

Reconstruction: the scan is noised to each start time and denoised with its own edges, or with an empty mask, and the
results are averaged. Deviation: `mask_weight` counts the pixels of a lesion more often than others, as they are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from pipeline.diffusion.control import Control, run_controlled
from pipeline.diffusion.denoiser import Unet
from pipeline.diffusion.process import Process
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig, Phase
from pipeline.methods.component import ComponentConfig
from pipeline.methods.composite import Composite, require_same_grid
from pipeline.nn.edges import find_edges
from pipeline.nn.rng import Rng
from pipeline.types import Batch

BASE: dict[str, Any] = {"name": "ddpm", "noise": "gaussian", "schedule": "cosine", "prediction": "v"}


class ControlnetConfig(MethodConfig):
    """Configuration of `controlnet`."""

    name: Literal["controlnet"] = "controlnet"
    base: ComponentConfig = Field(
        ComponentConfig(method=BASE), description="the ddpm that is controlled: a unet without conditions"
    )
    base_share: float = Field(
        0.6, gt=0, lt=1, description="share of the training used for the base, unless it is trained already"
    )
    control: Literal["edges", "lesion"] = Field(
        "edges", description="the picture that is followed: an image's edges, or a lesion's mask (the run has `masks`)"
    )
    edge: float = Field(0.25, gt=0, description="gradient of an edge, in units of the image [-1, 1] per pixel")
    drop: float = Field(0.1, ge=0, lt=1, description="edges: share of training images in which they are hidden")
    mask_weight: float = Field(1.0, ge=1, description="lesion: weight of a pixel in the mask; another one has 1")
    lr: float = Field(5e-4, gt=0, description="learning rate of Adam, of the copy")

    def components(self) -> Mapping[str, ComponentConfig]:
        """Return the base's configuration."""
        return {"base": self.base}

    def _build_with(
        self, image_size: int, channels: int, spatial_dims: int, components: Mapping[str, Method]
    ) -> Controlnet:
        base = components["base"]
        require_same_grid("base", base, (image_size, channels, spatial_dims))
        _require_plain(base)
        return Controlnet(self.name_component("base", base), base)


class Controlnet(Composite):
    """Noise and a picture in, an image that follows the picture out.

    Args:
        config: the configuration; its `base` is the configuration of `base`.
        base: the diffusion model; trained here unless it is frozen.
    """

    config: ControlnetConfig
    base: Method
    channels_last = True

    def __init__(self, config: ControlnetConfig, base: Method) -> None:
        super().__init__(config, base.image_size, base.channels, base.spatial_dims)
        first, end = self.hold("base", base, config.base, config.base_share)
        self.control = Control(_unet_config(base), base.spatial_dims, base.channels)
        self.control.copy_encoder(self.unet)
        self.phases = (*first, Phase("control", ("control",), lr=config.lr, after=end))

    @property
    def unet(self) -> Unet:
        """The frozen network."""
        return cast(Any, self.base).network

    @property
    def process(self) -> Process:
        """The base's forward process."""
        return cast(Any, self.base).process

    @property
    def passes(self) -> int:
        """Twice those of the base at most, since the copy is half a network; counted as whole ones."""
        own = cast(Any, self.base.config)
        return 2 * len(own.start_times) * own.steps

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """Return the network's output [B, C, *spatial] for x_t at times t [B] and the control c; float32."""
        return run_controlled(self.unet, self.control, x_t, t, c).float()

    def after_step(self, phase: str) -> None:
        """Keep the copy equal to the encoder while the base learns."""
        super().after_step(phase)
        if phase != "control":
            self.control.copy_encoder(self.unet)

    def own_loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the mean squared error of the prediction at a uniform time, given the control."""
        c = self.control_of(batch.images, batch.condition)
        if self.config.control == "edges":
            visible = rng.fork("visible").uniform(*[1] * (c.ndim - 1)) >= self.config.drop
            c = c * visible.to(c)
        x_t, t, target = self.process.lesson(batch.images, rng.fork("noise"))
        error = (self(x_t, t, c) - target).square()
        if self.config.control == "lesion":
            weight = 1 + (self.config.mask_weight - 1) * c
            error = error * weight / weight.mean()
        return {"total": error.mean(), "controlled": error.mean()}

    def control_of(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the control of images, float32 [B, 1, *spatial]: their edges, or a mask, empty where none is given."""
        if self.config.control == "edges":
            return find_edges(images, self.config.edge)
        return torch.zeros_like(images[:, :1], dtype=torch.float32) if mask is None else mask.float()

    def sample(self, rng: Rng, steps: int = 25, eta: float = 0.0, condition: Tensor | None = None) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`.

        Args:
            rng: one stream per row.
            steps: 1 to T.
            eta: 0 is DDIM, 1 the ancestral sampler.
            condition: the picture that each image follows, [B, 1, *spatial], 1 at edges or in the lesion, 0 elsewhere;
                None is an empty one.

        Raises:
            ConfigError: an option out of range, a condition of another shape or with other values, or eta > 0 for a
                noise other than Gaussian.
        """
        shape = (len(rng), 1, *self.image_shape[1:])
        c = torch.zeros(shape) if condition is None else condition.float()
        if tuple(c.shape) != shape or not ((c == 0) | (c == 1)).all():
            raise ConfigError(
                f"controlnet was given a picture of the shape {list(c.shape)} to follow. It takes {list(shape)} on the "
                "grid of its images, 1 at edges or in the lesion and 0 elsewhere, or None."
            )
        c = c.to(rng.device)
        with self.inference():
            return self.process.draw(lambda x_t, t: self(x_t, t, c), rng, steps, eta)

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the mean over start times of x noised and denoised with its own edges, or without a lesion."""
        with self.inference():
            c = self.control_of(self.check(x))
            many = c.repeat(len(cast(Any, self.base.config).start_times), *[1] * (c.ndim - 1))
            predict = self.process.eps_of(lambda x_t, t: self(x_t, t, many))
            return self.process.from_starts(predict, x, rng).mean(dim=0).to(x.dtype)


def _unet_config(base: Method) -> Any:
    return cast(Any, base.config).denoiser


def _require_plain(base: Method) -> None:
    """Refuse a base whose encoder cannot be copied (ConfigError)."""
    config = cast(Any, base.config)
    plain = config.name == "ddpm" and config.combine == "image" and config.painting is None
    if not plain or config.conditions is not None or config.denoiser.kind != "unet":
        raise ConfigError(
            f"{config.name} cannot be controlled as it is configured here. Choose a ddpm with a unet, and without "
            "conditions, painting and combine: residual."
        )
