"""Frozen network as a source of features, behind one small interface; its weights are saved with the module that holds
it.

EfficientNet-lite0 (the default) and -lite2 (Apache-2.0) have ImageNet weights in their packages, so nothing is ever
downloaded. Other networks are chosen by configuration and read their weights from a file with a known SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.nn.backbones import LITES, STAGES, Network, build_network


def _has_centre(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd, so that the neighbourhood has a centre")
    return value


Odd = Annotated[int, AfterValidator(_has_centre)]
Triple = tuple[float, float, float]
_WEIGHTS_FOLLOW: ContextVar[bool] = ContextVar("weights_follow", default=False)


class BackboneConfig(Config):
    """Choice of the frozen network, its depths, and the preprocessing that matches its training images."""

    kind: Literal[
        "efficientnet_lite0", "efficientnet_lite2", "resnet10", "resnet18", "resnet34", "resnet50", "resnet101",
        "resnet152", "resnet200", "densenet121", "densenet169", "densenet201", "densenet264", "efficientnet", "timm",
        "pixels", "random",
    ] = Field(
        "efficientnet_lite0",
        description="resnet, densenet, efficientnet: MONAI's, 2D or 3D; timm: needs that package; pixels: the image "
        "itself, halved by averaging; random: for tests",
    )  # fmt: skip
    depths: tuple[int, ...] = Field(
        (3, 4), min_length=1, description="stages whose features are taken, 1 to 5; stage s halves the grid s times"
    )
    input_size: int | None = Field(
        None, ge=32, description="edge to which images are resized first; null keeps their size"
    )
    model: str | None = Field(
        None, description="name of the model, for kinds `efficientnet` (efficientnet-b0 ...) and `timm`"
    )
    weights: str | None = Field(None, description="file of the weights (safetensors, or a state_dict of torch)")
    sha256: str | None = Field(None, description="SHA-256 of that file; any other file is rejected")
    mean: Triple | None = Field(
        None, description="mean of its training images in [0, 1]; null for the default of `kind`"
    )
    std: Triple | None = Field(None, description="standard deviation of its training images, likewise")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if sorted(set(self.depths)) != list(self.depths) or not 1 <= min(self.depths) <= max(self.depths) <= STAGES:
            raise ValueError(f"depths {list(self.depths)} must be increasing and within 1 to {STAGES}")
        if (self.kind in ("timm", "efficientnet")) != (self.model is not None):
            raise ValueError("set `model` for the kinds timm and efficientnet, and only for these")
        outside = self.kind not in (*LITES, "pixels", "random")
        if outside != (self.weights is not None) or outside != (self.sha256 is not None):
            raise ValueError(
                "set both `weights` and `sha256` for the kinds resnet, densenet, efficientnet and timm, and only for "
                "these"
            )
        return self

    @property
    def multiple(self) -> int:
        """The edge of an image must be a multiple of this; 1 if images are resized."""
        return 1 if self.input_size else 2 ** self.depths[-1]

    def grid(self, image_size: int) -> int:
        """Return the edge of the feature map at the first, finest depth."""
        return (self.input_size or image_size) // 2 ** self.depths[0]


class Backbone(nn.Module):
    """Features of images at chosen depths; never trained, always in eval mode.

    Each channel of an image is processed as a grey image of its own, and the features of all channels are concatenated.
    Gradients reach the image, never the weights. Stages beyond the deepest requested one are dropped.

    Args:
        config: the network and its depths.
        spatial_dims: 2, or 3 if the network supports it.

    Raises:
        ConfigError: a package or weight file is missing, has another SHA-256, or does not fit the network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig, spatial_dims: int = 2) -> None:
        super().__init__()
        if config.input_size and config.input_size % 2 ** config.depths[-1]:
            raise ConfigError(f"input_size {config.input_size} must be a multiple of {2 ** config.depths[-1]}.")
        self.config, self.spatial_dims = config, spatial_dims
        built: Network = build_network(
            config.kind, config.depths[-1], spatial_dims, config.model,
            None if config.weights is None or config.sha256 is None else (config.weights, config.sha256),
            trained=not _WEIGHTS_FOLLOW.get(),
        )  # fmt: skip
        self.network, self.widths = built.module, tuple(built.widths[d - 1] for d in config.depths)
        shape = (1, 3, *[1] * spatial_dims)
        self.register_buffer("mean", torch.tensor(config.mean or built.mean).reshape(shape))
        self.register_buffer("std", torch.tensor(config.std or built.std).reshape(shape))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, since batch statistics would make features depend on neighbours in the batch."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of images [B, C, *spatial] in [-1, 1]: per depth, float32 [B, C * width, *grid]."""
        stages = self.network(self.prepared(x))
        chosen = [stages[depth - 1].float() for depth in self.config.depths]
        return [maps.reshape(len(x), -1, *maps.shape[2:]) for maps in chosen]

    def prepared(self, x: Tensor) -> Tensor:
        """Return the network's input [B * C, 3, *spatial]: resized, repeated and standardised."""
        grey = x.flatten(0, 1)[:, None]
        if self.config.input_size and self.config.input_size != x.shape[-1]:
            size = (self.config.input_size,) * self.spatial_dims
            grey = F.interpolate(grey, size, mode=linear(self.spatial_dims), align_corners=False)
        return ((grey + 1) / 2 - self.mean) / self.std


@contextmanager
def weights_follow() -> Iterator[None]:
    """Build backbones without trained weights within this context: an artefact's weights are copied in afterwards, and
    the original weight file may be unavailable."""
    token = _WEIGHTS_FOLLOW.set(True)
    try:
        yield
    finally:
        _WEIGHTS_FOLLOW.reset(token)


def aligned(maps: list[Tensor]) -> Tensor:
    """Return feature maps on the grid of the first, finest one, concatenated: [B, sum of channels, *grid]."""
    size, mode = maps[0].shape[2:], linear(maps[0].ndim - 2)
    larger = [F.interpolate(m, size, mode=mode, align_corners=False) for m in maps[1:]]
    return torch.cat([maps[0], *larger], dim=1)


def local_features(backbone: Backbone, x: Tensor, patch: int) -> Tensor:
    """Return locally aware features of images (PatchCore, arXiv:2106.08265, equations 1 to 3): float32 [B, F, *grid].

    Each depth is averaged over a neighbourhood of `patch` positions, then all are brought to the finest grid.
    """
    return aligned([neighbourhood_mean(maps, patch) for maps in backbone(x)])


def neighbourhood_mean(maps: Tensor, edge: int) -> Tensor:
    """Return the mean over each position's neighbourhood, excluding padding: [B, C, *grid]."""
    pool, around = {2: F.avg_pool2d, 3: F.avg_pool3d}[maps.ndim - 2], (edge // 2,) * 2 * (maps.ndim - 2)
    share = pool(F.pad(torch.ones_like(maps[:1, :1]), around), edge, stride=1)
    return pool(F.pad(maps, around), edge, stride=1) / share


def touching(body: Tensor, grid: Sequence[int]) -> Tensor:
    """Return which positions of a grid touch the body [B, 1, *spatial]: bool [B, *grid]."""
    shrink = {2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[body.ndim - 2]
    return shrink(body.float(), list(grid))[:, 0] > 0


def enlarged(maps: Tensor, image_shape: torch.Size) -> Tensor:
    """Return maps [B, 1, *grid] on the grid of images [B, C, *spatial]."""
    return F.interpolate(maps, image_shape[2:], mode=linear(maps.ndim - 2), align_corners=False)


def linear(spatial_dims: int) -> str:
    """Return the name that torch gives to linear interpolation in this number of dimensions."""
    return "bilinear" if spatial_dims == 2 else "trilinear"
