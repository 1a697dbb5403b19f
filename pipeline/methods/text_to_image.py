"""`text_to_image`: images from words, by a rectified flow whose network attends to a prompt.

Notation as in `rectified_flow`: x the image, eps the noise, x_t = (1 - t) x + t eps, and v the velocity towards the
image; y is the prompt, tau(y) its vectors (`pipeline.nn.prompt_encoder`). In training, y is the image's caption, and
the empty prompt in a share `drop` of the images (arXiv:2207.12598, algorithm 1):

    L = E_{x, y, eps ~ N(0, 1), t} [ || eps - eps_theta(x_t, t, tau(y)) ||^2 ]      (arXiv:2112.10752, eq. 3)

with the velocity x - eps in place of eps (arXiv:2403.03206, eq. 5, and its text encoder). Sampling, with the negative
prompt n, "" by default, and the guidance s:

    v~(x_t) = v(x_t, n) + s (v(x_t, y) - v(x_t, n))      (arXiv:2205.11487, eq. 2, for eps)

s = 1 is the conditional model, s = 0 that of n. `redraw` noises an image to t = `strength` and follows the flow with
another prompt (arXiv:2108.01073, algorithm 1); under a mask, the image outside of it is put back at every step
(arXiv:2201.09865, eq. 8, without resampling). A scan is reconstructed by redrawing it towards the prompt "no finding",
and away from "lesion" if `away`. Deviations: pixels, folded into patches, instead of a latent code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor

from pipeline.data.images.captions import GRAMMAR, LESION, NO_FINDING, Caption, describe, parse_caption
from pipeline.diffusion.denoiser import UnetConfig
from pipeline.diffusion.flow import MOST_STEPS, TIME_SCALE, Flow, FlowConfig, Keep, Solver, follow, on_path
from pipeline.diffusion.guidance import STRONGEST, guided
from pipeline.diffusion.sampling import Denoiser
from pipeline.diffusion.worded_unet import WordedUnet
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig, Phase, check_finite, require_size
from pipeline.nn.condition import About
from pipeline.nn.prompt_encoder import PromptEncoder, TextConfig
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between
from pipeline.types import Batch

UNNAMED = "MR brain"  # what an image is called whose files say nothing
CLASSES = tuple(
    Caption(image="MR", third=third, finding=finding, side=side, size=size).write().partition(", ")[2]
    for third in ("", *GRAMMAR["third"])
    for finding in ("", NO_FINDING, LESION)
    for side in ("", *GRAMMAR["side"])
    for size in ("", *GRAMMAR["size"])
    if finding == LESION or not (side or size)
)


class TextToImageConfig(FlowConfig, MethodConfig):
    """Configuration of `text_to_image`."""

    name: Literal["text_to_image"] = "text_to_image"
    text: TextConfig = Field(TextConfig(), description="how prompts become vectors")
    head: str | None = Field(
        None, description="what every image is, such as 'axial FLAIR brain'; null: modality, view and part of its file"
    )
    denoiser: UnetConfig = Field(
        UnetConfig(patch=2, widths=(32, 64, 128), attention=(False, False, True)),
        description="the network, which attends to the prompt where it has attention, and at its lowest level",
    )
    drop: float = Field(0.1, ge=0, lt=1, description="share of training images whose caption is hidden")
    guidance: float = Field(
        2.0, ge=0, le=STRONGEST, description="s of a reconstruction, and of a sample with a prompt; 1 is off"
    )
    away: bool = Field(False, description="reconstruct away from the prompt 'lesion', for a model that learned lesions")
    start_times: tuple[float, ...] = Field((0.5,), min_length=1, description="strengths of a reconstruction's redraws")
    steps: int = Field(6, ge=1, le=MOST_STEPS, description="steps of each of them")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    @field_validator("head")
    @classmethod
    def _is_a_head(cls, text: str | None) -> str | None:
        try:
            caption = None if text is None else parse_caption(text)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if caption is not None and (caption.third or caption.finding or caption.subject):
            raise ValueError(f"head {text!r} says what every image is; leave its third, finding and subject out")
        return text

    def caption(self, about: About) -> list[Caption]:
        """Return the caption of each row; without a finding it is that of a normal image, as all others have one."""
        head = None if self.head is None else parse_caption(self.head)
        unnamed = parse_caption(UNNAMED)
        rows = [{"finding": NO_FINDING, **row} for row in about]
        return [cast(Caption, describe(row, head) or describe(row, unnamed)) for row in rows]

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> TextToImage:
        multiple = self.denoiser.multiple
        require_size(self.name, image_size, multiple, 4 * multiple)
        return TextToImage(self, image_size, channels, spatial_dims)


class TextToImage(Method):
    """Predict the velocity at x_t from a prompt; draw, redraw, inpaint and reconstruct by following it."""

    config: TextToImageConfig
    channels_last = True
    conditional = True

    def __init__(self, config: TextToImageConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        words = {word for part in GRAMMAR.values() for phrase in part for word in phrase.split()} | {"of", ","}
        self.prompts = PromptEncoder(config.text, CLASSES if config.text.kind == "whole" else sorted(words))
        self.network = WordedUnet(config.denoiser, spatial_dims, channels, config.text.width)
        self.flow = Flow(config, self.image_shape)
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """Return v (or x) [B, C, *spatial] for x_t at times t [B] in [0, 1] and prompts c [B, L, width]; float32."""
        return self.network(x_t, TIME_SCALE * t, c).float()

    @property
    def passes(self) -> int:
        """Every step of every start time, twice with heun (but the last one) and twice with guidance."""
        steps = self.config.steps if self.config.solver == "euler" else 2 * self.config.steps - 1
        return len(self.config.start_times) * steps * (1 if self.config.guidance in (0.0, 1.0) else 2)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the mean squared error of the predicted velocity, given the caption or nothing."""
        x_t, t, target = self.flow.lesson(batch.images, rng)
        hidden = (rng.fork("words").uniform() < self.config.drop).tolist()
        about = batch.about or ({},) * len(x_t)
        captions = self._texts(len(x_t), "", about)
        texts = ["" if hide else text for hide, text in zip(hidden, captions, strict=True)]
        error = self.flow.error(self(x_t, t, self.encode(texts)), target, t)
        return {"total": error, "velocity": error}

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Return the prompts' vectors, [B, L, width]; a class is its caption without what the image is.

        Raises:
            ConfigError: a prompt is too long, or has words that the encoder lacks.
        """
        if self.config.text.kind != "whole":
            return self.prompts(prompts)
        return self.prompts([parse_caption(one).write().partition(", ")[2] if one else "" for one in prompts])

    def sample(
        self,
        rng: Rng,
        steps: int = 12,
        solver: Solver = "euler",
        prompt: str = "",
        negative: str = "",
        guidance: float | None = None,
        about: About = (),
    ) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`.

        Args:
            rng: one stream per row.
            steps: 1 to 1000.
            solver: euler, or heun, which takes two forward passes per step but the last.
            prompt: what all images show; "" draws from all images, unless `about` says what each of them shows.
            negative: what they do not show.
            guidance: s, 0 to 100; None is that of the configuration with a prompt, 1 without one.
            about: attributes of each image; a `caption` is its prompt.

        Raises:
            ConfigError: an option out of range, guidance or a negative prompt without a prompt, or a prompt that the
                encoder cannot read.
        """
        with self.inference():
            network = self.towards(self._texts(len(rng), prompt, about), negative, guidance)
            return self.flow.draw(network, rng, steps, solver).clamp(-1, 1)

    def redraw(
        self,
        x: Tensor,
        rng: Rng,
        prompt: str,
        strength: float = 0.6,
        negative: str = "",
        guidance: float | None = None,
        steps: int = 12,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return images redrawn with a prompt, [B, C, *spatial]; image-to-image, or inpainting with a mask.

        Args:
            x: [B, C, *spatial].
            rng: one stream per row.
            prompt, negative, guidance, steps: as in `sample`.
            strength: 0 gives the images back, 1 nothing of them but the pixels outside the mask.
            mask: bool [B, 1, *spatial], True where to redraw; outside of it the image stays as it is. None is all.

        Raises:
            ConfigError: `strength` outside 0 .. 1, a mask of another shape, or as in `sample`.
        """
        require_between("strength", strength, 0.0, 1.0)
        with self.inference():
            network = self.towards([prompt] * len(self.check(x)), negative, guidance)
            return self._redraw(x, rng, network, strength, steps, self._check_mask(mask, x))

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None, about: About = ()) -> Tensor:
        """Return the mean over `start_times` of the image redrawn as one without a finding.

        Args:
            x: [B, C, *spatial].
            rng: one stream per row.
            body: not used.
            about: attributes of each image, for its prompt; () if unknown.
        """
        with self.inference():
            rows = about or ({},) * len(self.check(x))
            normal = self.config.caption([{**row, "finding": NO_FINDING} for row in rows])
            lesions = [one.write() for one in self.config.caption([{**row, "finding": LESION} for row in rows])]
            network = self.towards([one.write() for one in normal], lesions if self.config.away else "", None)
            many = [
                self._redraw(x, rng.fork(number), network, strength, self.config.steps, None)
                for number, strength in enumerate(self.config.start_times)
            ]
            return torch.stack(many).mean(dim=0).to(x.dtype)

    def towards(self, prompts: Sequence[str], negative: str | Sequence[str], guidance: float | None) -> Denoiser:
        """Return (x_t, t) -> prediction towards prompts, one per row, and away from the negative one.

        Raises:
            ConfigError: guidance outside 0 .. 100, or guidance or a negative prompt without prompts.
        """
        worded = any(prompts)
        s = guidance if guidance is not None else self.config.guidance if worded else 1.0
        require_between("guidance", s, 0.0, STRONGEST)
        if not worded and (s != 1.0 or any(negative)):
            raise ConfigError(
                f"Guidance {s:g} and the negative prompt {negative!r} act on a prompt, which is missing. Give one, "
                "such as 'axial FLAIR brain, no finding', or leave them out."
            )
        away = [negative] * len(prompts) if isinstance(negative, str) else negative
        return guided(self, self.encode(prompts), self.encode(away), s - 1)

    def _redraw(
        self, x: Tensor, rng: Rng, network: Denoiser, strength: float, steps: int, mask: Tensor | None
    ) -> Tensor:
        require_between("steps", steps, 1, MOST_STEPS)
        if strength == 0:
            return x
        eps, start = self.flow.noise(rng), torch.full((len(x),), strength, device=x.device)

        def keep(x_t: Tensor, t: Tensor) -> Tensor:
            return torch.where(cast(Tensor, mask), x_t, on_path(x, eps, t))

        back: Keep | None = None if mask is None else keep
        velocity, shift = self.flow.velocity_of(network), self.config.shift
        drawn = follow(velocity, on_path(x, eps, start), start, steps, self.config.solver, shift, back).clamp(-1, 1)
        return drawn if mask is None else torch.where(mask, drawn, x)

    def _texts(self, rows: int, prompt: str, about: About) -> list[str]:
        if about and prompt:
            raise ConfigError(f"The prompt {prompt!r} is for all images, but each has its own. Give one of the two.")
        if about and len(about) != rows:
            raise ConfigError(f"{rows} images have attributes for {len(about)}; give one mapping per image.")
        if not about:
            return [prompt] * rows
        return [str(row.get("caption") or self.config.caption([row])[0].write()) for row in about]

    def _check_mask(self, mask: Tensor | None, x: Tensor) -> Tensor | None:
        if mask is None:
            return None
        check_finite(mask)
        if mask.shape != x[:, :1].shape or not mask.any():
            raise ConfigError(
                f"The mask has the shape {list(mask.shape)} and {int(mask.sum())} pixels to redraw; it needs "
                f"{list(x[:, :1].shape)}, and at least one pixel. Give a mask of the image's own grid."
            )
        return mask.bool()
