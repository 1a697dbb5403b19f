"""`conditional_flow`: a rectified flow of the image given a degraded one: the paths of arXiv:2209.03003 (Liu et al.)
with the condition of SR3 and Palette (arXiv:2104.07636, arXiv:2111.05826).

Notation: x the image, y what is seen of it, m the mask of missing pixels, eps the noise, x_t = (1 - t) x + t eps. The
network sees x_t with y and m as further channels, and learns the velocity x - eps by the mean squared error
(arXiv:2209.03003, eq. 1). A draw follows the flow from noise at t = 1 to an image at t = 0. Its paths are nearly
straight, so that a few Euler steps do. One draw looks like an image; the mean of several is nearer to the true one. As
a detector it restores a scan that was degraded first (`asked`), `draws` times.

Deviations: with `prediction: x0` the network predicts the correction x - y, and the error is still that of the velocity
(arXiv:2511.13720); one flow, which is not rectified again.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.corruption.degrade_fields import RestoringFields, check_missing, see
from pipeline.diffusion.denoiser import Unet, UnetConfig
from pipeline.diffusion.flow import TIME_SCALE, Flow, FlowConfig, Prediction, Solver
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.repair import mean_of_draws
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class ConditionalFlowConfig(RestoringFields, FlowConfig, MethodConfig):
    """Configuration of `conditional_flow`."""

    name: Literal["conditional_flow"] = "conditional_flow"
    denoiser: UnetConfig = Field(UnetConfig(), description="the network")
    prediction: Prediction = Field(
        "x0", description="output of the network: x0 (as a correction of y), or the velocity"
    )
    start_times: tuple[float, ...] = Field((1.0,), min_length=1, max_length=1, description="time of pure noise: 1")
    solver: Solver = Field("euler", description="euler, or heun, whose steps but the last take two passes")
    draws: int = Field(4, ge=1, le=64, description="draws that a mean is taken of, as a detector and in tables")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> ConditionalFlow:
        require_size(self.name, image_size, self.denoiser.multiple, 4 * self.denoiser.multiple)
        self.check_ways(image_size, spatial_dims)
        return ConditionalFlow(self, image_size, channels, spatial_dims)


class ConditionalFlow(Method):
    """Noise and a degraded image in; an image that it could come from out."""

    config: ConditionalFlowConfig
    channels_last = True

    def __init__(self, config: ConditionalFlowConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.network = Unet(config.denoiser, spatial_dims, 2 * channels + 1, None, channels)
        self.flow = Flow(config, self.image_shape)
        self.phases = (Phase("train", lr=config.lr),)

    @property
    def passes(self) -> int:
        """Every step of every draw, twice with heun but the last, and all of it twice if tiles are hidden in turn."""
        steps = self.config.steps if self.config.solver == "euler" else 2 * self.config.steps - 1
        return self.config.draws * steps * self.config.times_asked

    def forward(self, x_t: Tensor, t: Tensor, seen: Tensor) -> Tensor:
        """Return x, or v, [B, C, *spatial] from x_t at times t [B] in [0, 1], and what is seen; float32."""
        output = self.network(torch.cat([x_t, seen.to(x_t)], dim=1), TIME_SCALE * t).float()
        return seen[:, : self.channels].float() + output if self.config.prediction == "x0" else output

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the mean squared error of the velocity at a time drawn by `time_law` (arXiv:2209.03003, eq. 1)."""
        lesson = self.config.study(batch, rng)
        x_t, t, target = self.flow.lesson(lesson.clean, rng.fork("level"))
        error = self.flow.error(self(x_t, t, lesson.seen), target, t)
        return {"total": error, "velocity": error}

    def restore(self, worse: Tensor, rng: Rng, condition: Tensor | None = None, steps: int | None = None) -> Tensor:
        """Return one draw from p(image | worse), [B, C, *spatial]; randomness comes from the row's key.

        Args:
            worse: [B, C, *spatial].
            rng: one stream per row.
            condition: mask [B, 1, *spatial], 1 where pixels are missing; None if none are.
            steps: 1 to 1000; None takes those of the configuration.

        Raises:
            ConfigError: steps out of range, or a condition that is not such a mask.
        """
        with self.inference():
            seen = see(self.check(worse), check_missing(self.config.name, worse, condition))
            taken = self.config.steps if steps is None else steps
            drawn = self.flow.draw(lambda x_t, t: self(x_t, t, seen), rng, taken, self.config.solver)
            return drawn.clamp(-1, 1).to(worse.dtype)

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the mean of `draws` times x degraded (`asked`) and restored."""
        self.check(x)
        draws = (self.config.repair_by(self.restore, x, rng.fork(f"draw {n}")) for n in range(self.config.draws))
        return mean_of_draws(list(draws))
