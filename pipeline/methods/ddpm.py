"""`ddpm`: a denoising diffusion model, arXiv:2006.11239; an image is noised to several times and walked back by DDIM.

Notation of the paper: x_0 the image, t the time in 0 .. T-1, eps the noise, alpha_bar the cumulative signal power.
Training minimises L_simple (eq. 14), or the same mean squared error of x_0 or v. Reconstruction: q(x_t0 | x_0) of eq. 4
for each start time t0, then DDIM (arXiv:2010.02502, eq. 12 with sigma = 0) to x_0, all start times in one batch. Coarse
and simplex noise (AnoDDPM, Wyatt et al. 2022) erase lesions that Gaussian noise of the same strength leaves standing.

With `conditions` the network is told what the image is of, and `guidance` is the weight of arXiv:2207.12598. With
`second_pass` the first pass only says where to look: there, and there alone, the image is painted anew from its
surroundings (AutoDDPM, Bercea et al., arXiv:2305.19643, sections 2.2 and 2.3; in each step, what lies outside is put
back as in RePaint, arXiv:2201.09865, eq. 8). Deviations from AutoDDPM: the mask comes of the smoothed absolute residual
by its rank within the image, not of a perceptual distance by a threshold, and steps are not resampled.

With `combine: residual` the method maps by itself (ddpm-ood, Graham et al., arXiv:2211.07740, section 2.2): the
absolute residual of each start time is z-scored with the mean and standard deviation that held-out normals have there,
and the z-scores are averaged. Deviations: pixels take the place of whole images, and L1 that of LPIPS and MSE.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.diffusion.denoiser import DenoiserConfig, UnetConfig, build_denoiser
from pipeline.diffusion.guidance import guided
from pipeline.diffusion.process import Process, ProcessConfig
from pipeline.diffusion.restoration import masked_restoration, suspect
from pipeline.diffusion.sampling import Denoiser
from pipeline.errors import ConfigError, EmptySelection
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.condition import About, ConditionConfig, Conditions
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class SecondPassConfig(Config):
    """The masked second pass."""

    share: float = Field(0.1, gt=0, lt=1, description="share of the body that is painted anew: the highest residuals")
    smooth: int = Field(5, ge=1, description="edge of the mean filter on the residual before they are ranked, odd")
    start: int = Field(400, ge=0, description="time that the masked part is noised to")
    steps: int = Field(10, ge=1, description="DDIM steps from there")

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.smooth % 2 == 0:
            raise ValueError(f"smooth {self.smooth} must be odd, so that the filter has a centre")
        return self


class DdpmConfig(MethodConfig, ProcessConfig):
    """Configuration of `ddpm`."""

    name: Literal["ddpm"] = "ddpm"
    denoiser: DenoiserConfig = Field(UnetConfig(), description="the network: kind unet or dit")
    combine: Literal["image", "residual"] = Field(
        "image",
        description="several start times: mean image, or (ddpm-ood) each residual map z-scored on validate normals",
    )
    still: float | None = Field(
        None, gt=0, description="early exit: a row stops when what is left to walk would change it by less"
    )
    second_pass: SecondPassConfig | None = Field(None, description="paint suspicious parts anew; null is off")
    conditions: ConditionConfig | None = Field(None, description="what the network is told of an image; null nothing")
    guidance: float = Field(0.0, description="w of classifier-free guidance; 0 none, needs conditions")
    lr: float = Field(5e-4, gt=0, description="learning rate of Adam")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.guidance and self.conditions is None:
            raise ValueError(f"guidance {self.guidance} needs conditions: say what the network is told")
        if self.still is not None and self.conditions is not None:
            raise ValueError("early exit (still) is for a model without conditions")
        if self.second_pass is not None and (self.second_pass.start >= self.times or self.combine == "residual"):
            raise ValueError(f"second_pass starts below time {self.times}, and gives one image: combine must be image")
        return self

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> DiffusionModel | StartTimes:
        multiple = self.denoiser.multiple
        require_size(self.name, image_size, multiple, 4 * multiple)
        model = DiffusionModel(self, image_size, channels, spatial_dims)
        return model if self.combine == "image" else StartTimes(model)


class DiffusionModel(Method):
    """Predicts the noise in x_t; reconstructs and samples by walking it back."""

    channels_last = True

    def __init__(self, config: DdpmConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.conditional = config.conditions is not None
        self.conditions = Conditions(config.conditions) if config.conditions else None
        width = config.conditions.width if config.conditions else None
        self.network = build_denoiser(config.denoiser, image_size, channels, spatial_dims, width)
        self.process = Process(config, self.image_shape, limit=1.0)
        self.phases = (Phase("train", lr=config.lr),)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """L_simple, eq. 14: the mean squared error of the predicted noise (x_0, v) at a uniform time."""
        x_t, t, wanted = self.process.lesson(batch.images, rng)
        if self.conditions is None:
            given = self.network(x_t, t)
        else:
            given = self.network(x_t, t, self.conditions(batch.about, len(x_t), rng))
        error = F.mse_loss(given.float(), wanted)
        return {"total": error, self.config.prediction: error}

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None, about: About = ()) -> Tensor:
        """Return the mean over `start_times` of the image noised to t0 and walked back; random by the row's key.

        Args:
            x: [B, C, *spatial].
            rng: one stream a row.
            body: where a second pass looks; None is everywhere.
            about: what is known of each image; () where nothing is.
        """
        with self.inference():
            x_hat = self.reconstructions(x, rng, about).mean(dim=0)
            return x_hat if self.config.second_pass is None else self._again(x, x_hat, rng, body, about)

    def reconstructions(self, x: Tensor, rng: Rng, about: About = ()) -> Tensor:
        """Return one reconstruction a start time, [T0, B, C, *spatial]; all are walked in one batch."""
        with self.inference():
            predict = self.denoiser(self.told(about, len(self.check(x))), len(self.config.start_times))
            return self.process.from_starts(predict, x, rng, self.config.still).to(x.dtype)

    def sample(self, rng: Rng, steps: int | None = None, eta: float = 1.0, about: About = ()) -> Tensor:
        """Return new images [B, C, *spatial], one a row of `rng`; `steps` None takes all T, eta 0 is DDIM.

        Raises:
            ConfigError: eta > 0 for a noise other than Gaussian, whose steps do not compose.
        """
        if eta > 0 and self.config.noise != "gaussian":
            raise ConfigError(
                f"Ancestral sampling needs Gaussian noise, and this model has {self.config.noise}: use eta=0."
            )
        with self.inference():
            predict, times = self.denoiser(self.told(about, len(rng))), self.config.times
            return self.process.walk(predict, self.process.noise(rng), times - 1, steps or times, rng, eta)

    def told(self, about: About, rows: int) -> tuple[Tensor, Tensor] | None:
        """Return the condition of each row and the one that says nothing; None where the model takes none."""
        if self.conditions is None:
            return None
        return self.conditions(about, rows), self.conditions((), rows)

    def denoiser(self, told: tuple[Tensor, Tensor] | None, copies: int = 1) -> Denoiser:
        """Return the noise predictor for `copies` copies of the rows, guided where the configuration says so."""
        if told is None:
            return self.process.eps_of(self.network)
        c, nothing = (part.repeat(copies, 1) for part in told)
        return self.process.eps_of(guided(self.network, c, nothing, self.config.guidance))

    def _again(self, x: Tensor, x_hat: Tensor, rng: Rng, body: Tensor | None, about: About) -> Tensor:
        second = self.config.second_pass
        mask = suspect((x - x_hat).abs().mean(dim=1, keepdim=True), body, second.share, second.smooth)
        predict, again = self.denoiser(self.told(about, len(x))), rng.fork("second pass")
        return masked_restoration(self.process, predict, x, mask, second.start, second.steps, again).to(x.dtype)


class StartTimes(Method):
    """Maps by the residuals of every start time of a diffusion model, each against what is normal at that time."""

    channels_last = True

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__(model.config, model.image_size, model.channels, model.spatial_dims)
        self.model, self.conditional = model, model.conditional
        self.phases = model.phases
        self.register_buffer("normal_mean", torch.zeros(len(model.config.start_times)))
        self.register_buffer("normal_std", torch.zeros(len(model.config.start_times)))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """L_simple of the diffusion model."""
        return self.model.loss(batch, phase, rng)

    def residuals(self, x: Tensor, rng: Rng, about: About = ()) -> Tensor:
        """Return |x - x_hat| of every start time, channels averaged: [T0, B, 1, *spatial]."""
        return (x - self.model.reconstructions(x, rng, about)).abs().mean(dim=2, keepdim=True)

    def standardise(self, batches: Iterable[Batch]) -> None:
        """Fit mean and standard deviation of each start time's residual over the bodies of held-out normals."""
        total, squares, count = 0.0, 0.0, 0
        device = self.normal_mean.device
        for batch in batches:
            rng = Rng.scoring(0, batch.ids, device)
            values = self.residuals(batch.images.to(device), rng, batch.about).double() * batch.body.to(device)
            total, squares = total + values.flatten(1).sum(dim=1), squares + values.square().flatten(1).sum(dim=1)
            count += int(batch.body.sum())
        if not count:
            raise EmptySelection(
                "The held-out normals have no body: start times cannot be z-scored. Look at the scans."
            )
        mean = total / count
        self.normal_mean.copy_(mean)
        self.normal_std.copy_((squares / count - mean.square()).clamp_min(0).sqrt())

    def anomaly_map(self, x: Tensor, rng: Rng, about: About = ()) -> Tensor:
        """Return the mean over the start times of the z-scored residual, [B, 1, *spatial]; random by the row's key.

        Raises:
            ConfigError: nothing was held out when it was trained, so that there are no constants.
        """
        with self.inference():
            self.check(x)
            if not self.normal_std.all():
                raise ConfigError(
                    "This model z-scores its start times, and no normals were held out to do it with. Give the "
                    "validate set scans and train again, or use combine: image."
                )
            shape = (-1, *[1] * x.ndim)
            mean, std = self.normal_mean.reshape(shape), self.normal_std.reshape(shape)
            return ((self.residuals(x, rng, about) - mean) / std).mean(dim=0)
