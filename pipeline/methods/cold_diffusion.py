"""`cold_diffusion`: diffusion whose noise is a painted lesion that fades in; each of several times is asked once.

Cold diffusion (Bansal et al., arXiv:2208.09392) with painted lesions as the degradation, as in DISYRE (Naval Marimont
et al., arXiv:2311.15453 and 2407.06635): x_t = x_0 + a_t (x_T - x_0), where x_T is the image with its lesions and a_t =
(t + 1) / T. The network f(x_t, t) predicts x_0 directly. A scan is not degraded: it is taken for an x_t of every one of
`ask_times`, f answers each in one step, and x_hat is the mean of the answers. At early times f looks for faint lesions
and at late ones for strong ones.

Deviations: the lesions are those of `pipeline.corruption` and not DAG patches; a_t enters as a constant channel, not as
an embedding; with a gate (`gated`) f gives x_t + g d.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.corruption.lesions import fade
from pipeline.corruption.painting import PaintingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.repair import Repaired, RepairFields, mean_of_draws
from pipeline.nn.rng import Rng
from pipeline.nn.unet import UNetFields
from pipeline.types import Batch


class ColdDiffusionConfig(RepairFields, PaintingFields, UNetFields, MethodConfig):
    """Configuration of `cold_diffusion`."""

    name: Literal["cold_diffusion"] = "cold_diffusion"
    times: int = Field(100, ge=2, description="T, the number of diffusion times")
    ask_times: tuple[int, ...] = Field(
        (24, 49, 74, 99), min_length=1, description="times t that a scan is taken for; one forward pass each"
    )
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if not all(0 <= t < self.times for t in self.ask_times) or len(set(self.ask_times)) < len(self.ask_times):
            raise ValueError(f"ask_times {self.ask_times} must be distinct and lie in 0 .. {self.times - 1}")
        return self

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> ColdDiffusion:
        require_size(self.name, image_size, self.multiple, 2 * self.multiple)
        return ColdDiffusion(self, image_size, channels, spatial_dims)


class ColdDiffusion(Method):
    """Image with a lesion of strength a_t in; clean image out."""

    config: ColdDiffusionConfig
    channels_last = True

    def __init__(self, config: ColdDiffusionConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.network = config.unet(spatial_dims, channels + 1, config.outputs(channels))
        self.phases = (Phase("train", lr=config.lr),)

    @property
    def passes(self) -> int:
        """One for each of `ask_times`."""
        return len(self.config.ask_times)

    def strength(self, t: Tensor) -> Tensor:
        """Return a_t = (t + 1) / T for times int64 [B], shaped to broadcast over [B, 1, *spatial]."""
        return ((t + 1) / self.config.times).reshape(-1, 1, *[1] * self.spatial_dims)

    def forward(self, x_t: Tensor, t: Tensor) -> Repaired:
        """Return f(x_t, t), the prediction of x_0 [B, C, *spatial]."""
        a_t = self.strength(t).to(x_t.dtype).expand(-1, -1, *x_t.shape[2:])
        return self.config.repaired(x_t, self.network(torch.cat([x_t, a_t], dim=1)))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the error of f(x_t, t) against x_0 at a uniform time, within the body, a mean over the images."""
        lesson = self.config.lesson(batch, rng)
        t = rng.fork("time").integers(0, self.config.times)
        degraded = fade(lesson.painted, lesson.clean, self.strength(t), self.config.lesions)
        target = self.config.target(degraded, lesson.clean)
        terms = self.config.repair_terms(self(degraded.images, t), lesson.clean, target, lesson.body)
        return {"total": terms["repair"], **terms}

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the mean of f(x, t) over `ask_times`; no randomness."""
        with self.inference():
            self.check(x)
            times = [torch.full((len(x),), t, device=x.device) for t in self.config.ask_times]
            return mean_of_draws([self(x, t).images for t in times]).to(x.dtype)
