"""`learned_residual`: a head that learns to read the difference between an image and its reconstruction.

DRAEM (Zavrtanik et al., arXiv:2108.07610, section 3): a reconstructor answers x_hat, and a segmenting network sees
[x, x_hat] and learns on painted normals where they differ for a reason. A subtraction treats every difference alike;
the head learns which ones the reconstructor makes on healthy tissue too. Any reconstructor will do, trained here first
(`share` of the training) or taken from a trained model; it is frozen while the head learns. The map is that of
`synthetic_lesion`: -log P(healthy). `sees` says what the head sees, so that one can measure what x_hat adds to x.

Deviations from DRAEM: both networks are not trained together, the loss is cross-entropy and soft Dice in place of the
focal loss, and lesions are painted by `pipeline.corruption`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from pipeline.corruption import PaintingFields
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.methods.capabilities import Reconstructor
from pipeline.methods.component import ComponentConfig
from pipeline.methods.composite import Composite, require_same_grid
from pipeline.nn.condition import About
from pipeline.nn.repair import lesion_surprise, lesion_terms
from pipeline.nn.rng import Rng
from pipeline.nn.unet import UNetFields
from pipeline.types import Batch


class LearnedResidualConfig(PaintingFields, UNetFields, MethodConfig):
    """Configuration of `learned_residual`."""

    name: Literal["learned_residual"] = "learned_residual"
    reconstructor: ComponentConfig = Field(
        ComponentConfig(method={"name": "vae"}), description="the method whose reconstruction the head sees"
    )
    share: float = Field(
        0.6, gt=0, lt=1, description="share of the training used for the reconstructor, unless it is trained already"
    )
    sees: Literal["both", "image", "reconstruction", "difference"] = Field(
        "both", description="input of the head; difference is x - x_hat"
    )
    dice: float = Field(1.0, ge=0, description="weight of the soft Dice beside the cross-entropy")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam, of the head")

    def components(self) -> Mapping[str, ComponentConfig]:
        """Return the reconstructor's configuration."""
        return {"reconstructor": self.reconstructor}

    def _build_with(
        self, image_size: int, channels: int, spatial_dims: int, components: Mapping[str, Method]
    ) -> LearnedResidual:
        reconstructor = components["reconstructor"]
        _check(reconstructor, (image_size, channels, spatial_dims))
        self.check_size(image_size, components)
        return LearnedResidual(self.name_component("reconstructor", reconstructor), reconstructor)

    def check_size(self, image_size: int, components: Mapping[str, Method]) -> None:
        """Check that the head can halve the grid."""
        require_size(self.name, image_size, self.multiple, 2 * self.multiple)


class LearnedResidual(Composite):
    """Painted image -> x_hat; [x, x_hat] -> mask of what was painted.

    Args:
        config: the configuration; its `reconstructor` is the configuration of `reconstructor`.
        reconstructor: a reconstructor; trained here unless it is a trained model.
    """

    config: LearnedResidualConfig
    reconstructor: Method

    def __init__(self, config: LearnedResidualConfig, reconstructor: Method) -> None:
        super().__init__(config, reconstructor.image_size, reconstructor.channels, reconstructor.spatial_dims)
        first, end = self.hold("reconstructor", reconstructor, config.reconstructor, config.share)
        self.conditional, self.channels_last = reconstructor.conditional, reconstructor.channels_last
        seen = self.channels * (2 if config.sees == "both" else 1)
        self.network = config.unet(self.spatial_dims, seen, 1)
        self.phases = (*first, Phase("head", ("network",), lr=config.lr, after=end))

    @property
    def passes(self) -> int | None:
        """Those of the reconstructor if the head sees its answer, and one of the head."""
        first = 0 if self.config.sees == "image" else self.reconstructor.passes
        return None if first is None else first + 1

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the logit of "lesion" [B, 1, *spatial], float32."""
        return self.network(self._seen(x, x_hat)).float()

    def _seen(self, x: Tensor, x_hat: Tensor) -> Tensor:
        match self.config.sees:
            case "both":
                return torch.cat([x, x_hat], dim=1)
            case "image":
                return x
            case "reconstruction":
                return x_hat
            case "difference":
                return x - x_hat

    def own_loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the head's cross-entropy + dice x (1 - soft Dice)."""
        lesson = self.config.lesson(batch, rng)
        x = lesson.painted.images
        logit = self(x, self.reconstructed(x, rng.fork("reconstruct"), batch.about))
        return lesion_terms(logit, lesson.target, lesson.body, self.config.dice)

    def reconstructed(self, x: Tensor, rng: Rng, about: About = ()) -> Tensor:
        """Return x_hat [B, C, *spatial] of the reconstructor; zeros if the head does not see it."""
        if self.config.sees == "image":
            return torch.zeros_like(x)
        conditions: dict[str, Any] = {"about": about} if self.conditional else {}
        return cast(Reconstructor, self.reconstructor).reconstruct(x, rng, **conditions).to(x.dtype)

    def anomaly_map(self, x: Tensor, rng: Rng, about: About = ()) -> Tensor:
        """Return -log P(healthy) [B, 1, *spatial], at least 0; randomness is that of the reconstructor.

        Args:
            x: [B, C, *spatial].
            rng: one stream per row.
            about: attributes of each image, for a conditional reconstructor; () if unknown.
        """
        with self.inference():
            return lesion_surprise(self(self.check(x), self.reconstructed(x, rng, about)))


def _check(reconstructor: Method, sizes: tuple[int, int, int]) -> None:
    """Check that the component answers with an image, on the grid of this method."""
    name = reconstructor.config.name
    if not isinstance(reconstructor, Reconstructor):
        raise ConfigError(
            f"{name} does not reconstruct an image, so a learned residual has nothing to compare. Choose a "
            "reconstructor, such as vae, vq_vae, dae or ladder_vae."
        )
    require_same_grid("reconstructor", reconstructor, sizes)
