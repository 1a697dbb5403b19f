"""Images along a line of codes: between two images, or along one dimension of one image's code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Codec


def interpolate(method: Method, a: Tensor, b: Tensor, count: int) -> Tensor:
    """Return `count` images from a to b, decoded at equal distances on the line between their codes.

    Args:
        method: a codec.
        a, b: [B, C, *spatial].
        count: at least 2: the first and the last are the reconstructions of a and b.

    Returns:
        [B, count, C, *spatial]; no randomness.

    Raises:
        ConfigError: the method is not a codec, or `count` is below 2.
    """
    codec = _codec_of(method)
    if count < 2:
        raise ConfigError(f"{count} images were requested, but a walk goes from one to another. Give at least 2.")
    with method.inference():
        first, last = codec.to_code(method.check(a)), codec.to_code(method.check(b))
        return torch.stack([codec.from_code(first.lerp(last, k / (count - 1))) for k in range(count)], dim=1)


def traverse(method: Method, x: Tensor, dim: int, values: Sequence[float]) -> Tensor:
    """Return images whose codes are those of x except for one dimension, which takes each of the values in turn.

    Args:
        method: a codec.
        x: [B, C, *spatial].
        dim: dimension of the code, from 0.
        values: of that dimension, the same over a code's whole grid.

    Returns:
        [B, len(values), C, *spatial]; no randomness.

    Raises:
        ConfigError: the method is not a codec, its code has no such dimension, or there are no values.
    """
    codec = _codec_of(method)
    with method.inference():
        code = codec.to_code(method.check(x))
        if not 0 <= dim < code.shape[1] or not values:
            raise ConfigError(
                f"Cannot set dimension {dim} of a code of {code.shape[1]} to {len(values)} values. Choose a dimension "
                f"from 0 to {code.shape[1] - 1}, and at least one value."
            )
        moved = [code.index_fill(1, torch.tensor([dim], device=code.device), value) for value in values]
        return torch.stack([codec.from_code(each) for each in moved], dim=1)


def _codec_of(method: Method) -> Codec:
    if not isinstance(method, Codec):
        raise ConfigError(f"{method.config.name} has no code that can be decoded. Choose a codec, such as vae.")
    return cast(Codec, method)
