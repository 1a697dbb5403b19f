"""A model's answer to a degraded image: its restoration, else its reconstruction, else its code decoded again."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Codec, Reconstructor, Restorer
from pipeline.nn.rng import Rng
from pipeline.stages.generate.draw import device_of
from pipeline.stages.generate.restoration.paired import Answer
from pipeline.types import Batch


def require_answer(method: Method) -> None:
    """Refuse a method that gives no image for an image (ConfigError)."""
    if not isinstance(method, Restorer | Reconstructor | Codec):
        raise ConfigError(
            f"{method.config.name} does not turn an image into an image, so it cannot remove anything from one. "
            "Choose a method "
            "that reconstructs, such as vae, dae or ddpm."
        )


def answer_of(method: Method) -> Answer:
    """Return the answer of a method, whatever it can do; see the module."""

    def answer(worse: Batch, rng: Rng) -> Tensor:
        """Return the images that the method makes of worse ones."""
        device = device_of(method)
        x, streams = method.check(worse.images.to(device)), Rng(rng.keys, device)
        conditions: dict[str, Any] = {"about": worse.about} if method.conditional else {}
        with method.inference():
            if isinstance(method, Restorer):
                condition = None if worse.condition is None else worse.condition.to(device)
                return cast(Restorer, method).restore(x, streams, condition)
            if isinstance(method, Reconstructor):
                return cast(Any, method).reconstruct(x, streams, worse.body.to(device), **conditions)
            codec = cast(Codec, method)
            return codec.from_code(codec.to_code(x))

    return answer
