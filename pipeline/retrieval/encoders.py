"""Encoders: what makes a vector of an image, and the JSON that says exactly which one it is.

- `codes`: of a trained model. For a VQ-VAE the chosen entries of its codebook, as in arXiv:1807.04629, averaged over a
  grid of cells; for other models the description that they make of an image (`Embedder`), or their continuous code.
- `frozen`: of a frozen network, from ImageNet: nothing is trained.
- `pixels`: the image itself, the plainest baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods import Model
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Codec, Embedder, Tokeniser
from pipeline.nn.backbone import Backbone, BackboneConfig
from pipeline.nn.backbones import LITE0_SHA256
from pipeline.nn.quantise import VectorQuantiser
from pipeline.retrieval.stored_index import sha256_of

DEPTHS, EDGE = (3, 4), 128  # of the frozen network: middle features, on images of this many pixels
CELLS = 4  # per edge: a code or a brightness is compared with the same sixteenth of the other image
AT_ONCE = 32


@runtime_checkable
class CodebookTokeniser(Tokeniser, Protocol):
    """A tokeniser of one grid whose tokens are entries of one codebook."""

    quantiser: VectorQuantiser


@dataclass(frozen=True)
class Encoder:
    """An encoder of images.

    Attributes:
        facts: JSON that says which one it is, with the SHA-256 of its weights; `kind` is its readable name.
        embed: images float32 [N, C, S, S] about [-1, 1] -> vectors float32 [N, D]; no randomness.
    """

    facts: Mapping[str, Any]
    embed: Callable[[Tensor], np.ndarray]

    @property
    def kind(self) -> str:
        """Readable name."""
        return str(self.facts["kind"])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the encoder, which an index of its vectors carries."""
        return sha256_of(self.facts)


def pixel_encoder(images: Mapping[str, Any]) -> Encoder:
    """Return the encoder that takes an image as it is; `images` is JSON of the normaliser."""
    return Encoder({"kind": "pixels", "images": dict(images)}, lambda x: x.float().flatten(1).numpy())


def frozen_encoder(images: Mapping[str, Any]) -> Encoder:
    """Return the encoder of EfficientNet-lite0: unit vectors of the means of its middle stages; `images` as above."""
    facts = {"kind": "frozen features", "weights_sha256": LITE0_SHA256, "depths": list(DEPTHS), "edge": EDGE}
    backbone: list[Backbone] = []

    def embed(x: Tensor) -> np.ndarray:
        """Return the unit vectors of images."""
        if not backbone:
            backbone.append(Backbone(BackboneConfig(depths=DEPTHS, input_size=EDGE)))
        with torch.inference_mode():
            maps = [backbone[0](part.float()) for part in x.split(AT_ONCE)]
        stages = [F.normalize(torch.cat(stage).mean(dim=(2, 3)), dim=1) for stage in zip(*maps, strict=True)]
        return F.normalize(torch.cat(stages, dim=1), dim=1).numpy()

    return Encoder({**facts, "images": dict(images)}, embed)


def code_encoder(model: Model) -> Encoder:
    """Return the encoder of a trained model of slices.

    Raises:
        ConfigError: its method makes no code of an image.
    """
    method = model.method
    require_code_of_image(method)
    sha256 = "" if model.origin is None else model.origin.sha256
    facts = {"kind": f"{method.config.name} codes", "model_sha256": sha256, "cells": CELLS}
    device = next(iter(method.state_dict().values())).device

    def embed(x: Tensor) -> np.ndarray:
        """Return the codes of images."""
        with method.inference():
            parts = [_code(method, method.check(part.to(device))).float().cpu() for part in x.split(AT_ONCE)]
        return torch.cat(parts).numpy()

    return Encoder(facts, embed)


def require_code_of_image(method: Method) -> None:
    """Refuse a method that makes no code of an image (ConfigError)."""
    if not isinstance(method, CodebookTokeniser | Embedder | Codec):
        raise ConfigError(
            f"{method.config.name} makes no code of an image, so images cannot be compared by it. Choose a codec, such "
            "as vq_vae, vqgan, vae or diff_ae."
        )


def _code(method: Method, x: Tensor) -> Tensor:
    """Return the code of images [B, C, S, S] as vectors [B, D]."""
    one: Any = method
    if isinstance(method, CodebookTokeniser) and isinstance(one.quantiser, VectorQuantiser):
        return _in_cells(one.quantiser.embed(one.to_tokens(x)))
    if isinstance(method, Embedder):
        return cast(Embedder, method).embed(x)
    return _in_cells(one.to_code(x))


def _in_cells(code: Tensor) -> Tensor:
    """Return codes [B, D, *grid], averaged over cells where the grid is finer than these, as vectors."""
    if code.ndim == 4 and min(code.shape[-2:]) > CELLS:
        code = F.adaptive_avg_pool2d(code.float(), CELLS)
    return code.flatten(1)
