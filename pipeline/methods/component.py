"""Methods inside other methods: the codec of a latent model, built from the registry or read from a trained model.

A method file never imports another one; it receives its component built. The component's configuration is a mapping
that the registry validates when the outer method is built, since the registry imports every method file, and none can
import the registry while loading.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, field_validator, model_validator

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Codec
from pipeline.nn.backbone import trained_weights_follow


class CodecConfig(Config):
    """Choice of the codec: one that is trained here, or a trained model named by its SHA-256.

    After building, `method` is the codec's own configuration and `folder` is removed, since an artefact needs no other
    folder.
    """

    method: dict[str, Any] = Field({"name": "vq_vae"}, description="configuration of the codec that is trained first")
    folder: Path | None = Field(None, description="folder of a trained model (or its run) whose method is the codec")
    sha256: str | None = Field(None, description="SHA-256 of that model")

    @field_validator("method")
    @classmethod
    def _plain(cls, method: dict[str, Any]) -> dict[str, Any]:
        """Convert it as a JSON round trip would, so that equal configurations compare equal."""
        return json.loads(json.dumps(method))

    @model_validator(mode="after")
    def _both(self) -> Self:
        if self.folder is not None and self.sha256 is None:
            raise ValueError("a codec's folder needs the sha256 of its model: nightread runs --json shows it")
        return self


def build_codec(config: CodecConfig, image_size: int, channels: int, spatial_dims: int) -> tuple[Method, CodecConfig]:
    """Return the codec, and its configuration without the folder. A codec that was read is frozen.

    Raises:
        ArtefactError: the folder is missing, altered, or has another SHA-256.
        ConfigError: the method does not encode and decode, or was trained on images of another size.
    """
    from pipeline.methods import load_model, method_config  # the registry imports the methods that import this file

    if config.sha256 is None:
        codec = method_config(config.method).build(image_size, channels, spatial_dims, seed=_seed())
        return _checked(codec, (image_size, channels, spatial_dims)), config
    if config.folder is None:
        if not trained_weights_follow():
            raise ConfigError(f"The codec {config.sha256[:12]}… is named without its folder. Set codec.folder too.")
        codec = method_config(config.method).build(image_size, channels, spatial_dims)
    else:
        codec = load_model(config.folder, config.sha256).method
    plain = CodecConfig(method=codec.config.model_dump(mode="json"), sha256=config.sha256)
    return _checked(codec, (image_size, channels, spatial_dims)).requires_grad_(False), plain


def _seed() -> int:
    """Draw a seed from the global generator, which `MethodConfig.build` has seeded and will restore."""
    return int(torch.randint(2**31, ()))


def _checked(codec: Method, sizes: tuple[int, int, int]) -> Method:
    name = codec.config.name
    if not isinstance(codec, Codec):
        raise ConfigError(
            f"{name} cannot be a codec: it has no code that can be decoded. Choose one that does: ae, ae_u, vae, "
            "vampprior, vq_vae, vq_vae2, vqgan, f_anogan or alpha_gan."
        )
    if sizes != (actual := (codec.image_size, codec.channels, codec.spatial_dims)):
        raise ConfigError(
            f"The codec {name} was trained on images of (size, channels, dimensions) {actual}, but {sizes} are needed. "
            "Use the same normaliser, or train a codec for this one."
        )
    return codec
