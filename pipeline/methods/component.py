"""Configuration of a method inside another one, such as the codec of a latent model.

A method file never imports another one: `pipeline.methods.method_registry.build_method` builds the component, or is
given that of a trained model, and passes it in.
"""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config import Config


class ComponentConfig(Config):
    """Choice of the component: one that is trained here, or the trained model of a run, named by its SHA-256.

    After building, `method` is the component's own configuration in either case.
    """

    method: dict[str, Any] = Field(
        {"name": "vq_vae"}, description="configuration of a component that is trained here first"
    )
    run: str | None = Field(None, min_length=1, description="id of a run whose trained model is the component instead")
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
                "a trained component is named by both `run` and `sha256` (model_sha256 in nightread runs --json). Set "
                "both, or neither to train it here"
            )
        return self

    @property
    def trained(self) -> bool:
        """Whether the component is another run's model: frozen here, and saved by name, without its weights."""
        return self.sha256 is not None
