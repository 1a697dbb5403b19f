"""`rectified_flow`: images from noise along straight paths, Liu, Gong and Liu, arXiv:2209.03003.

Notation: x the image, eps the noise, x_t = (1 - t) x + t eps. The network v(x_t, t) learns E[x - eps | x_t], by the
mean squared error of eq. 1, and a sample follows dx = -v dt from noise at t = 1 to the image at t = 0. The paths of the
flow are nearly straight, so few steps are needed. Time runs as in `ddpm`; t of the paper is 1 - t here.

`time_law: logit_normal` draws more training times from the middle, where the velocity is hardest to predict (Esser et
al., arXiv:2403.03206, eq. 19). With `prediction: x0` the network predicts the image, and the error is still that of the
velocity (Li and He, arXiv:2511.13720): noise has to pass a network that predicts a velocity, but not one that predicts
the image. Reconstruction: the image is mixed with noise up to each start time t0, and follows the
flow back; the mean over the start times. With `conditions` the network is conditioned on what the image shows, and
`guidance` is the weight of arXiv:2207.12598, whose combination holds for velocities too. Deviations: one flow, which is
not rectified again on its own samples (section 2.2); the network is that of `ddpm`.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.diffusion.denoiser import DenoiserConfig, UnetConfig, build_denoiser
from pipeline.diffusion.flow import MOST_STEPS, TIME_SCALE, Flow, FlowConfig, Solver, follow, on_path
from pipeline.diffusion.guidance import GuidanceFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.condition import About
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between
from pipeline.types import Batch


class RectifiedFlowConfig(GuidanceFields, FlowConfig, MethodConfig):
    """Configuration of `rectified_flow`."""

    name: Literal["rectified_flow"] = "rectified_flow"
    denoiser: DenoiserConfig = Field(UnetConfig(), description="the network: kind unet or dit")
    lr: float = Field(5e-4, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> RectifiedFlow:
        multiple = self.denoiser.multiple
        require_size(self.name, image_size, multiple, 4 * multiple)
        return RectifiedFlow(self, image_size, channels, spatial_dims)


class RectifiedFlow(Method):
    """Predict the velocity at x_t; reconstruct and sample by following it."""

    config: RectifiedFlowConfig
    channels_last = True

    def __init__(self, config: RectifiedFlowConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.conditions = config.build_conditions()
        self.conditional = self.conditions is not None
        self.network = build_denoiser(config.denoiser, image_size, channels, spatial_dims, config.condition_width)
        self.flow = Flow(config, self.image_shape)
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Return v (or x) [B, C, *spatial] for x_t at times t [B] in [0, 1] and the condition c; float32."""
        t = TIME_SCALE * t
        return (self.network(x_t, t) if c is None else self.network(x_t, t, c)).float()

    @property
    def passes(self) -> int:
        """Every step of every start time, twice with heun (but the last one) and twice with guidance."""
        steps = self.config.steps if self.config.solver == "euler" else 2 * self.config.steps - 1
        return len(self.config.start_times) * steps * self.config.passes_per_step

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return eq. 1: the mean squared error of the predicted velocity at a time drawn by `time_law`."""
        x_t, t, target = self.flow.lesson(batch.images, rng)
        c = None if self.conditions is None else self.conditions(batch.about, len(x_t), rng)
        error = self.flow.error(self(x_t, t, c), target, t)
        return {"total": error, "velocity": error}

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None, about: About = ()) -> Tensor:
        """Return the mean over `start_times` of the image taken to t0 and back; randomness comes from the row's key.

        Args:
            x: [B, C, *spatial].
            rng: one stream per row.
            body: not used.
            about: attributes of each image, for a model with conditions; () if unknown.
        """
        with self.inference():
            copies = len(self.config.start_times)
            network = self.config.towards(self, self.conditions, about, len(self.check(x)), copies=copies)
            return self.flow.from_starts(network, x, rng).mean(dim=0).clamp(-1, 1).to(x.dtype)

    def purify(self, x: Tensor, rng: Rng, time: float, steps: int = 5) -> Tensor:
        """Return the images taken to `time` on the path and back along the flow, [B, C, *spatial].

        That is the purification of arXiv:2205.07460, section 3, with straight paths in place of diffusion. A
        conditional model is asked without attributes.

        Args:
            x: [B, C, *spatial].
            rng: one stream per row.
            time: t*, above 0 (the image) and at most 1 (noise).
            steps: steps of the way back, 1 to 1000.

        Raises:
            ConfigError: an option out of range.
        """
        require_between("time", time, 0, 1, above=True)
        require_between("steps", steps, 1, MOST_STEPS)
        with self.inference():
            start = torch.full((len(self.check(x)),), time, device=x.device)
            network = self.config.towards(self, self.conditions, (), len(x), 0.0)
            x_t = on_path(x, self.flow.noise(rng), start)
            clean = follow(self.flow.velocity_of(network), x_t, start, steps, self.config.solver)
            return clean.clamp(-1, 1).to(x.dtype)

    def sample(
        self,
        rng: Rng,
        steps: int = 25,
        solver: Solver = "euler",
        guidance: float | None = None,
        about: About = (),
    ) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`.

        Args:
            rng: one stream per row.
            steps: 1 to 1000.
            solver: euler, or heun, which takes two forward passes per step but the last.
            guidance: w of classifier-free guidance, at least -1; None is that of the configuration.
            about: attributes of each image, for a model with conditions; () draws from all images.

        Raises:
            ConfigError: an option out of range, or attributes or guidance without conditions.
        """
        with self.inference():
            network = self.config.towards(self, self.conditions, about, len(rng), guidance)
            return self.flow.draw(network, rng, steps, solver).clamp(-1, 1)
