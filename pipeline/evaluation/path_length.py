"""Perceptual path length: how evenly images change along lines between codes.

Karras et al., arXiv:1812.04948, section 4.1. A decoder for which a small step is anywhere a small change has short
paths; one whose images jump somewhere on the way has long ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Codec
from pipeline.nn.perceptual import Perceptual, PerceptualConfig
from pipeline.nn.rng import Rng

Distance = Callable[[Tensor, Tensor], Tensor]
EPSILON = 1e-2  # 1e-4 in the paper; in float32 the distance of images that near is mostly rounding


def measure_path_length(
    method: Method, images: Tensor, seed: int = 0, batch: int = 32, distance: Distance | None = None
) -> Tensor:
    """Return the path length between the codes of each image and the next one, float32 [N]; its mean is reported.

    Random: the place on each line, from the seed. Comparable between methods on the same images.

    Args:
        method: a codec.
        images: [N, C, *spatial], at least 2, of one data set.
        seed: of the places.
        batch: images at a time.
        distance: a squared distance of each pair of images, [B]; None takes LPIPS without weights.

    Raises:
        ConfigError: the method is not a codec, or fewer than 2 images.
    """
    if not isinstance(method, Codec) or len(images) < 2:
        raise ConfigError(
            f"A path needs a codec and 2 images, not {method.config.name} and {len(images)}. Choose a method with a "
            "code, such as vae or stylegan2, and more images."
        )
    codec, d = cast(Codec, method), distance or Perceptual(PerceptualConfig(kind="unit_l2"), images.ndim - 2)
    share = Rng(range(len(images))).fork(seed).uniform(high=1 - EPSILON)
    with method.inference():
        codes = torch.cat([codec.to_code(method.check(part)) for part in images.split(batch)])
        lines = zip(codes.split(batch), codes.roll(-1, 0).split(batch), share.split(batch), strict=True)
        return torch.cat([path_length(codec.from_code, d, (a, b), t) for a, b, t in lines])


def path_length(
    generate: Callable[[Tensor], Tensor], distance: Distance, ends: tuple[Tensor, Tensor], share: Tensor
) -> Tensor:
    """Return d(G(lerp(a, b; t)), G(lerp(a, b; t + epsilon))) / epsilon^2 of each row, float32 [B].

    Args:
        generate: G, codes -> images, without randomness.
        distance: d, a squared distance of each pair of images: [B].
        ends: a and b, float32 [B, D, *grid] each.
        share: t, float32 [B] in [0, 1 - epsilon].
    """
    a, b = ends
    t = share.reshape(-1, *[1] * (a.ndim - 1))
    return distance(generate(a.lerp(b, t)), generate(a.lerp(b, t + EPSILON))).float() / EPSILON**2
