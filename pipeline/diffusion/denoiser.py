"""Denoising networks by configuration: MONAI's diffusion U-Net or a transformer, with or without a condition."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.nn.dit import DiffusionTransformer
from pipeline.nn.patches import fold, unfold

GROUPS = 8


class UnetConfig(Config):
    """The U-Net of diffusion models."""

    kind: Literal["unet"] = "unet"
    widths: tuple[int, ...] = Field((16, 32, 64), min_length=1, description="channels per level, multiples of 8")
    attention: tuple[bool, ...] = Field(
        (False, False, False), description="self-attention per level; the lowest block always has one"
    )
    residual_blocks: int = Field(1, ge=1, description="residual blocks per level")
    patch: int = Field(2, ge=1, description="edge of the patches that are folded into channels; 2 costs a quarter")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.attention) != len(self.widths):
            raise ValueError(
                f"attention has {len(self.attention)} levels but widths has {len(self.widths)}; give one value per "
                "level"
            )
        if any(width % GROUPS or width <= 0 for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of {GROUPS} (group norm)")
        return self

    @property
    def multiple(self) -> int:
        """The image size must be a multiple of this."""
        return self.patch * 2 ** (len(self.widths) - 1)


class DitConfig(Config):
    """The transformer of arXiv:2212.09748."""

    kind: Literal["dit"] = "dit"
    patch: int = Field(4, ge=1, description="edge of a token in pixels")
    width: int = Field(128, ge=8, description="channels of a token, a multiple of 4 (6 for volumes) and of the heads")
    depth: int = Field(6, ge=1, description="blocks")
    heads: int = Field(4, ge=1, description="attention heads")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of the {self.heads} heads")
        return self

    @property
    def multiple(self) -> int:
        """The image size must be a multiple of this."""
        return self.patch


def _kind(values: Any) -> str:
    """Return the kind; unet by default, so that one of its fields can be set alone."""
    return values.get("kind", "unet") if isinstance(values, dict) else values.kind


DenoiserConfig = Annotated[Annotated[UnetConfig, Tag("unet")] | Annotated[DitConfig, Tag("dit")], Discriminator(_kind)]


class Unet(nn.Module):
    """MONAI's DiffusionModelUNet on patches, conditioned on the time and an optional vector.

    Patches are folded into channels before the network and unfolded after it (arXiv:2301.11093, section 3). The
    condition's vector passes a linear layer and is added to the embedding of the time. `out` is the number of channels
    of the prediction, `channels` by default; they differ where images to look at are further input channels.
    """

    def __init__(
        self, config: UnetConfig, spatial_dims: int, channels: int, condition: int | None, out: int | None = None
    ) -> None:
        from monai.networks.nets import DiffusionModelUNet

        super().__init__()
        self.patch = config.patch
        pixels = config.patch**spatial_dims
        self.network = DiffusionModelUNet(
            spatial_dims, channels * pixels, (out or channels) * pixels,
            config.residual_blocks, config.widths, config.attention,
            norm_num_groups=GROUPS, num_head_channels=GROUPS, num_class_embeds=None if condition is None else 1,
        )  # fmt: skip
        if condition is not None:
            self.network.class_embedding = nn.Linear(condition, 4 * config.widths[0])

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the prediction [B, out, *spatial]; `c` is [B, width]."""
        return unfold(self.network(fold(x_t, self.patch), t, class_labels=c), self.patch)


def build_denoiser(
    config: DenoiserConfig, size: int, channels: int, spatial_dims: int, condition: int | None = None
) -> nn.Module:
    """Return a network (x_t, t, c) -> [B, C, *spatial], whose last layer starts at zero.

    Args:
        config: unet or dit.
        size: edge of the grid; a multiple of `config.multiple`.
        channels: of the image or code.
        spatial_dims: 2 or 3.
        condition: length of the vector c; None for no condition.
    """
    if isinstance(config, UnetConfig):
        return Unet(config, spatial_dims, channels, condition)
    return DiffusionTransformer(
        size, channels, spatial_dims, config.patch, config.width, config.depth, config.heads, condition
    )
