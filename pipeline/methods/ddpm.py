"""`ddpm`: a denoising diffusion model, arXiv:2006.11239; an image is noised to several times and denoised by DDIM.

Notation of the paper: x_0 the image, t the time in 0 .. T-1, eps the noise, alpha_bar the cumulative signal power.
Training minimises L_simple (eq. 14), or the same mean squared error of x_0 or v. Reconstruction: q(x_t0 | x_0) of eq. 4
for each start time t0, then DDIM (arXiv:2010.02502, eq. 12 with sigma = 0) to x_0, all start times in one batch. Coarse
and simplex noise (AnoDDPM, Wyatt et al. 2022) erase lesions that Gaussian noise of the same strength leaves intact.

With `conditions` the network is conditioned on what the image shows, and `guidance` is the weight of arXiv:2207.12598.
With `second_pass` the first pass only locates suspicious parts, and only these are inpainted from their surroundings
(AutoDDPM, Bercea et al., arXiv:2305.19643, sections 2.2 and 2.3; in each step, the part outside is put back as in
RePaint, arXiv:2201.09865, eq. 8). Deviations from AutoDDPM: the mask is taken from the smoothed absolute residual by
its rank within the image, not from a perceptual distance by a threshold, and steps are not resampled.

With `combine: residual` the method makes its own map (ddpm-ood, Graham et al., arXiv:2211.07740, section 2.2): the
absolute residual of each start time is z-scored with its mean and standard deviation on held-out normals,
and the z-scores are averaged. Deviations: pixels instead of whole images, and L1 instead of LPIPS and MSE.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.painting import RepairingFields
from pipeline.diffusion.denoiser import DenoiserConfig, UnetConfig, build_denoiser
from pipeline.diffusion.guidance import GuidanceFields
from pipeline.diffusion.process import Process, ProcessConfig
from pipeline.diffusion.restoration import masked_restoration, suspect
from pipeline.diffusion.sampling import Denoiser
from pipeline.errors import ConfigError, EmptySelection
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.condition import About
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between
from pipeline.types import Batch


class SecondPassConfig(Config):
    """The masked second pass."""

    share: float = Field(0.1, gt=0, lt=1, description="share of the body that is inpainted: the highest residuals")
    smooth: int = Field(5, ge=1, description="edge of the mean filter on the residual before ranking, odd")
    start: int = Field(400, ge=0, description="time that the masked part is noised to")
    steps: int = Field(10, ge=1, description="DDIM steps from there")

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.smooth % 2 == 0:
            raise ValueError(f"smooth {self.smooth} must be odd, so that the filter has a centre")
        return self


class DdpmConfig(RepairingFields, GuidanceFields, MethodConfig, ProcessConfig):
    """Configuration of `ddpm`."""

    name: Literal["ddpm"] = "ddpm"
    denoiser: DenoiserConfig = Field(UnetConfig(), description="the network: kind unet or dit")
    combine: Literal["image", "residual"] = Field(
        "image",
        description="several start times: mean image, or (ddpm-ood) each residual map z-scored on validate normals",
    )
    still: float | None = Field(
        None, gt=0, description="early exit: a row stops once the remaining steps would change it by less than this"
    )
    second_pass: SecondPassConfig | None = Field(None, description="inpaint suspicious parts; null is off")
    lr: float = Field(5e-4, gt=0, description="learning rate of Adam")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.still is not None and self.conditions is not None:
            raise ValueError("early exit (still) is not possible with conditions. Remove one of them")
        if self.painting is not None and self.prediction != "x0":
            raise ValueError(
                f"with painting, the clean image is the target, so prediction {self.prediction} does not apply. Set "
                "prediction to x0"
            )
        if self.second_pass is not None and (self.second_pass.start >= self.times or self.combine == "residual"):
            raise ValueError(f"second_pass must start below time {self.times}, and needs combine: image")
        return self

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> DiffusionModel | StartTimes:
        multiple = self.denoiser.multiple
        require_size(self.name, image_size, multiple, 4 * multiple)
        model = DiffusionModel(self, image_size, channels, spatial_dims)
        return model if self.combine == "image" else StartTimes(model)


class DiffusionModel(Method):
    """Predict the noise in x_t; reconstruct and sample by denoising."""

    config: DdpmConfig
    channels_last = True

    def __init__(self, config: DdpmConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.conditional = config.conditions is not None
        self.conditions = config.build_conditions()
        self.network = build_denoiser(
            config.denoiser, image_size, config.inputs(channels), spatial_dims, config.condition_width
        )
        self.process = Process(config, self.image_shape, limit=1.0)
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the network's output [B, C, *spatial] for x_t at times t [B] and the condition c."""
        seen = self.config.seen(x_t)
        output = self.network(seen, t) if c is None else self.network(seen, t, c)
        return output[:, : self.channels]

    @property
    def passes(self) -> int:
        """Forward passes of the network per image: every step of every start time, twice with guidance."""
        steps = len(self.config.start_times) * self.config.steps
        second = self.config.second_pass
        return (steps + (second.steps if second else 0)) * self.config.passes_per_step

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return L_simple, eq. 14: the mean squared error of the predicted noise (x_0, v) at a uniform time."""
        x, clean = self.config.pair(batch, rng)
        x_t, t, target = self.process.lesson(x, rng)
        c = None if self.conditions is None else self.conditions(batch.about, len(x_t), rng)
        error = F.mse_loss(self(x_t, t, c).float(), target if self.config.painting is None else clean)
        return {"total": error, self.config.prediction: error}

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None, about: About = ()) -> Tensor:
        """Return the mean over `start_times` of the image noised to t0 and denoised; randomness comes from the row's
        key.

        Args:
            x: [B, C, *spatial].
            rng: one stream per row.
            body: pixels that a second pass may change; None for all.
            about: attributes of each image; () if unknown.
        """
        with self.inference():
            x_hat = self.reconstructions(x, rng, about).mean(dim=0)
            return x_hat if self.config.second_pass is None else self._again(x, x_hat, rng, body, about)

    def reconstructions(self, x: Tensor, rng: Rng, about: About = ()) -> Tensor:
        """Return one reconstruction per start time, [T0, B, C, *spatial]; all are denoised in one batch."""
        with self.inference():
            predict = self.denoiser(about, len(self.check(x)), len(self.config.start_times))
            return self.process.from_starts(predict, x, rng, self.config.still).to(x.dtype)

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
            network = self.config.towards(self, self.conditions, about, len(rng), guidance)
            return self.process.draw(network, rng, steps, eta)

    def purify(self, x: Tensor, rng: Rng, time: float, steps: int = 5) -> Tensor:
        """Return the images noised to `time` and denoised (arXiv:2205.07460, section 3), [B, C, *spatial].

        The way back is ancestral, as the paper's reverse SDE, or DDIM for noise other than Gaussian. A conditional
        model is asked without attributes.

        Args:
            x: [B, C, *spatial].
            rng: one stream per row.
            time: t*, the share of the T times that the images are noised to, above 0 and at most 1.
            steps: steps of the way back, at least 1.

        Raises:
            ConfigError: an option out of range.
        """
        require_between("time", time, 0, 1, above=True)
        require_between("steps", steps, 1, self.config.times)
        with self.inference():
            start = max(round(time * self.config.times) - 1, 0)
            t = torch.full((len(self.check(x)),), start, dtype=torch.int64, device=x.device)
            x_t = self.process.noised(x, self.process.noise(rng.fork("noise")), t)
            eta = 1.0 if self.config.noise == "gaussian" else 0.0
            predict = self.process.eps_of(self.config.towards(self, self.conditions, (), len(x), 0.0))
            return self.process.walk(predict, x_t, start, steps, rng.fork("back"), eta).to(x.dtype)

    def denoiser(self, about: About, rows: int, copies: int = 1) -> Denoiser:
        """Return the noise predictor for `copies` copies of the rows, with guidance if configured."""
        return self.process.eps_of(self.config.towards(self, self.conditions, about, rows, copies=copies))

    def _again(self, x: Tensor, x_hat: Tensor, rng: Rng, body: Tensor | None, about: About) -> Tensor:
        second = cast(SecondPassConfig, self.config.second_pass)
        mask = suspect((x - x_hat).abs().mean(dim=1, keepdim=True), body, second.share, second.smooth)
        predict, again = self.denoiser(about, len(x)), rng.fork("second pass")
        return masked_restoration(self.process, predict, x, mask, second.start, second.steps, again).to(x.dtype)


class StartTimes(Method):
    """Map the residuals of every start time of a diffusion model, each z-scored against normals at that time."""

    channels_last = True
    config: DdpmConfig
    normal_mean: Tensor
    normal_std: Tensor

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__(model.config, model.image_size, model.channels, model.spatial_dims)
        self.model, self.conditional = model, model.conditional
        self.phases = model.phases
        self.register_buffer("normal_mean", torch.zeros(len(model.config.start_times)))
        self.register_buffer("normal_std", torch.zeros(len(model.config.start_times)))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return L_simple of the diffusion model."""
        return self.model.loss(batch, phase, rng)

    @property
    def passes(self) -> int:
        """Those of the diffusion model."""
        return self.model.passes

    def residuals(self, x: Tensor, rng: Rng, about: About = ()) -> Tensor:
        """Return |x - x_hat| of every start time, channels averaged: [T0, B, 1, *spatial]."""
        return (x - self.model.reconstructions(x, rng, about)).abs().mean(dim=2, keepdim=True)

    def standardise(self, batches: Iterable[Batch]) -> None:
        """Fit mean and standard deviation of each start time's residual over the bodies of held-out normals."""
        total, squares, count = torch.zeros(()), torch.zeros(()), 0
        device = self.normal_mean.device
        for batch in batches:
            rng = Rng.scoring(0, batch.ids, device)
            about = batch.about if self.conditional else ()
            values = self.residuals(batch.images.to(device), rng, about).double() * batch.body.to(device)
            total, squares = total + values.flatten(1).sum(dim=1), squares + values.square().flatten(1).sum(dim=1)
            count += int(batch.body.sum())
        if not count:
            raise EmptySelection(
                "The held-out normals have an empty body mask, so start times cannot be z-scored. Check the body mask."
            )
        mean = total / count
        self.normal_mean.copy_(mean)
        self.normal_std.copy_((squares / count - mean.square()).clamp_min(0).sqrt())

    def anomaly_map(self, x: Tensor, rng: Rng, about: About = ()) -> Tensor:
        """Return the mean over the start times of the z-scored residual, [B, 1, *spatial]; randomness comes from the
        row's key.

        Raises:
            ConfigError: nothing was held out in training, so there are no constants.
        """
        with self.inference():
            self.check(x)
            if not self.normal_std.all():
                raise ConfigError(
                    "This model z-scores its start times, but no normals were held out to fit the constants. Add scans "
                    "to the validate set and train again, or use combine: image."
                )
            shape = (-1, *[1] * x.ndim)
            mean, std = self.normal_mean.reshape(shape), self.normal_std.reshape(shape)
            return ((self.residuals(x, rng, about) - mean) / std).mean(dim=0)
