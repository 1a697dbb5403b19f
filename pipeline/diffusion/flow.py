"""Straight paths between image and noise, for rectified flow: Liu, Gong and Liu, arXiv:2209.03003.

Notation: x the image, eps the noise, x_t = (1 - t) x + t eps the path, v = x - eps its velocity towards the image. Time
runs as for diffusion, from the image at t = 0 to noise at t = 1; t of the paper, whose X_1 is the image and X_0 the
noise, is 1 - t here (as in arXiv:2403.03206 and in MONAI's `RFlowScheduler`). The image follows from noise by the
ordinary differential equation dx = -v dt. It transports noise of any kind, not only Gaussian noise.

MONAI's scheduler takes the same steps, which a test checks. It is not used because it draws times from the global
generator, shares one time between all rows of a batch, and rounds its grid of times to float16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Self, get_args

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.diffusion.noise import NoiseKind, draw_noise
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between, require_one_of

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, C, *spatial], t float32 [B] in [0, 1]) -> v of the same shape
Keep = Callable[[Tensor, Tensor], Tensor]  # (x_t, its time [B]) -> x_t with its fixed part restored
Solver = Literal["euler", "heun"]
Prediction = Literal["velocity", "x0"]
MOST_STEPS = 1000
TIME_SCALE = 1000.0  # the networks embed times as 0 .. 1000


class FlowConfig(Config):
    """Configuration of the path and of following it."""

    prediction: Prediction = Field("velocity", description="output of the network: the velocity, or the image (x0)")
    time_law: Literal["uniform", "logit_normal"] = Field(
        "uniform", description="law of the times in training: uniform, or logit_normal, which prefers the middle"
    )
    time_mean: float = Field(0.0, description="logit_normal: mean of logit t; above 0 means more noise")
    time_std: float = Field(1.0, gt=0, description="logit_normal: standard deviation of logit t")
    least_weighed: float = Field(
        0.05, gt=0, le=1, description="x0: time below which the weight 1 / t^2 of an image's error no longer grows"
    )
    noise: NoiseKind = Field("gaussian", description="gaussian, simplex or coarse")
    noise_grid: int = Field(16, ge=2, description="cells of the coarse noise along one edge")
    start_times: tuple[float, ...] = Field(
        (0.3, 0.45, 0.6), min_length=1, description="times t0 that a scan is taken to: 0 is the image, 1 noise"
    )
    steps: int = Field(4, ge=1, le=MOST_STEPS, description="steps from each t0 to the image")
    solver: Solver = Field("euler", description="euler, or heun, whose steps but the last take two passes")
    shift: float = Field(
        1.0, gt=0, description="sampling: above 1, more of the steps at much noise (arXiv:2403.03206, eq. 23)"
    )

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if not all(0 < t <= 1 for t in self.start_times):
            raise ValueError(f"start_times {self.start_times} must be above 0 and at most 1")
        if len(set(self.start_times)) < len(self.start_times):
            raise ValueError(f"start_times {self.start_times} must be distinct")
        return self


class Flow:
    """The path and its solvers.

    Args:
        config: law of times, noise, start times, solver.
        shape: shape of one image, (C, *spatial).
    """

    def __init__(self, config: FlowConfig, shape: Sequence[int]) -> None:
        self.config, self.shape = config, tuple(shape)

    def noise(self, rng: Rng) -> Tensor:
        """Draw eps: [B, C, *spatial]."""
        return draw_noise(self.config.noise, rng, self.shape, self.config.noise_grid)

    def times(self, rng: Rng) -> Tensor:
        """Draw a training time per row, [B] in [0, 1]; logit_normal is that of arXiv:2403.03206, eq. 19."""
        if self.config.time_law == "uniform":
            return rng.uniform()
        return torch.sigmoid(self.config.time_mean + self.config.time_std * rng.normal())

    def lesson(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a time and a noise per row; return x_t, t and the target of the network: x - eps, or x."""
        t, eps = self.times(rng), self.noise(rng)
        return on_path(x, eps, t), t, x - eps if self.config.prediction == "velocity" else x

    def error(self, output: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """Return the mean squared error of the velocity (arXiv:2209.03003, eq. 1), whatever the network predicts.

        An error of the image is one of the velocity times t (arXiv:2511.13720, section 3); its weight is limited.
        """
        squares = (output - target).square()
        if self.config.prediction == "x0":
            squares = squares / _against(t.clamp_min(self.config.least_weighed), output).square()
        return squares.mean()

    def velocity_of(self, network: Velocity) -> Velocity:
        """Return the velocity that a network's prediction implies: (x_0 - x_t) / t where it is the image."""
        if self.config.prediction == "velocity":
            return network

        def velocity(x_t: Tensor, t: Tensor) -> Tensor:
            return (network(x_t, t) - x_t) / _against(t, x_t)

        return velocity

    def draw(self, network: Velocity, rng: Rng, steps: int, solver: Solver) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`, from noise at t = 1; the network predicts.

        Raises:
            ConfigError: `steps` is not in 1 .. 1000, or an unknown solver.
        """
        require_between("steps", steps, 1, MOST_STEPS)
        require_one_of("solver", solver, get_args(Solver))
        start = torch.ones(len(rng), device=rng.device)
        return follow(self.velocity_of(network), self.noise(rng), start, steps, solver, self.config.shift)

    def from_starts(self, network: Velocity, x: Tensor, rng: Rng) -> Tensor:
        """Take each image to every start time and back, all of them in one batch: [T0, B, C, *spatial].

        Args:
            network: predicts for T0 x B rows, start time by start time.
            x: [B, C, *spatial].
            rng: each start time draws its own noise from a fork of the row's stream.
        """
        starts = self.config.start_times
        eps = torch.cat([self.noise(rng.fork(number)) for number in range(len(starts))])
        many = x.repeat(len(starts), *[1] * (x.ndim - 1))
        t = torch.tensor(starts, device=x.device).repeat_interleave(len(x))
        x_hat = follow(self.velocity_of(network), on_path(many, eps, t), t, self.config.steps, self.config.solver)
        return x_hat.reshape(len(starts), *x.shape)


def on_path(x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Return x_t = (1 - t) x + t eps at times t [B]."""
    t = _against(t, x)
    return (1 - t) * x + t * eps


def follow(
    velocity: Velocity,
    x_t: Tensor,
    start: Tensor,
    steps: int,
    solver: Solver = "euler",
    shift: float = 1.0,
    keep: Keep | None = None,
) -> Tensor:
    """Return the images at t = 0, from x_t at times `start` [B].

    The steps are equal with a shift of 1. Otherwise the time u of an equal step becomes s u / (1 + (s - 1) u) (Esser et
    al., arXiv:2403.03206, eq. 23): the layout of an image is decided at much noise, in the first of equal steps.

    The error decreases with the number of steps for euler, and with its square for heun: the trapezoidal rule with an
    Euler step as predictor, at two evaluations per step. The last step is Euler's, since at t = 0 a velocity is not
    reliable (as in arXiv:2206.00364, algorithm 1). `keep` is called after each step, for inpainting (arXiv:2201.09865,
    eq. 8).
    """
    left = [1 - k / steps for k in range(steps + 1)]
    grid = [shift * u / (1 + (shift - 1) * u) for u in left]
    for k in range(steps):
        now, after = start * grid[k], start * grid[k + 1]
        dt, v = _against(now - after, x_t), velocity(x_t, now)
        if solver == "heun" and k < steps - 1:
            v = (v + velocity(x_t + dt * v, after)) / 2
        x_t = x_t + dt * v
        x_t = x_t if keep is None else keep(x_t, after)
    return x_t


def _against(t: Tensor, like: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)
