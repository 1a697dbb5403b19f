"""Configuration of a method inside another one, such as the codec of a latent model.

A method file never imports another one: `pipeline.methods.method_registry.build_method` builds the component, or is
given that of a trained model, and passes it in.
"""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config import Config


class CodecConfig(Config):
    """Choice of the codec: one that is trained here, or the trained model of a run, named by its SHA-256.

    After building, `method` is the codec's own configuration in either case.
    """

    method: dict[str, Any] = Field({"name": "vq_vae"}, description="configuration of the codec that is trained first")
    run: str | None = Field(None, min_length=1, description="id of a run whose trained model is the codec instead")
    sha256: str | None = Field(None, description="SHA-256 of that model; any other one is rejected")

    @field_validator("method")
    @classmethod
    def _plain(cls, method: dict[str, Any]) -> dict[str, Any]:
        """Convert it as a JSON round trip would, so that equal configurations compare equal."""
        return json.loads(json.dumps(method))

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.run is None) != (self.sha256 is None):
            raise ValueError(
                "a trained codec is named by both `run` and `sha256` (model_sha256 in nightread runs --json). Set "
                "both, or neither to train the codec here"
            )
        return self

    @property
    def trained(self) -> bool:
        """Whether the codec is another run's model: frozen here, and saved by name, without its weights."""
        return self.sha256 is not None
