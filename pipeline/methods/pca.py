"""`pca`: eigen-images, the plainest model of images, which every other sampler and reconstructor must beat.

Turk and Pentland, Eigenfaces for recognition, Journal of Cognitive Neuroscience 1991, 3:71. The training images have a
mean mu and a covariance, whose leading eigenvectors are u_k and whose eigenvalues are lambda_k. A code is
z_k = u_k (x - mu), an image is x_hat = mu + sum_k z_k u_k, and a sample is one whose z_k are drawn from N(0, lambda_k).
Nothing is trained: the images are read once, in bounded memory (`pipeline.nn.principal_components`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.errors import ArtefactError
from pipeline.methods.base import Method, MethodConfig, require_size
from pipeline.nn.principal_components import PrincipalComponents
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between
from pipeline.types import Batch


class PcaConfig(MethodConfig):
    """Configuration of `pca`."""

    name: Literal["pca"] = "pca"
    directions: int = Field(
        64, ge=1, le=1024, description="eigen-images that are taken; there are never more than training images less one"
    )

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Pca:
        require_size(self.name, image_size, 1, 2)
        return Pca(self, image_size, channels, spatial_dims)


class Pca(Method):
    """x -> z = U (x - mu) -> x_hat = mu + U' z."""

    config: PcaConfig
    mean: Tensor
    directions: Tensor
    variances: Tensor
    fitted: Tensor

    def __init__(self, config: PcaConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        pixels = channels * image_size**spatial_dims
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("directions", torch.zeros(config.directions, pixels))
        self.register_buffer("variances", torch.zeros(config.directions))
        self.register_buffer("fitted", torch.tensor(0))

    def finish(self, batches: Iterable[Batch]) -> None:
        """Take the mean and the leading components of the training images; unused components stay 0."""
        moments = PrincipalComponents(self.config.directions)
        for batch in batches:
            moments.add(self.check(batch.images).float().flatten(1))
        principal = moments.result()
        for buffer, value in ((self.directions, principal.components), (self.variances, principal.variances)):
            buffer.zero_()
            buffer[: len(value)] = value
        self.mean.copy_(principal.mean)
        self.fitted.fill_(principal.count)

    @contextmanager
    def _answer(self) -> Iterator[None]:
        """Answer in float32 and in eval mode.

        Raises:
            ArtefactError: `finish` has not been called.
        """
        if not int(self.fitted):
            raise ArtefactError(
                "pca has no eigen-images yet: they are computed at the end of training. Train it first."
            )
        with self.inference(), torch.autocast(self.mean.device.type, enabled=False):
            yield

    def to_code(self, x: Tensor) -> Tensor:
        """Return the code on a grid of 1: [B, directions, 1, 1]."""
        code = (x.float().flatten(1) - self.mean) @ self.directions.T
        return code.reshape(*code.shape, *[1] * self.spatial_dims)

    def from_code(self, z: Tensor) -> Tensor:
        """Return images of codes."""
        return (self.mean + z.flatten(1) @ self.directions).reshape(-1, *self.image_shape)

    def embed(self, x: Tensor) -> Tensor:
        """Return the code as a vector [B, directions]: distances of codes are those of the projected images."""
        with self._answer():
            return self.to_code(self.check(x)).flatten(1)

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the projection of x on the eigen-images; no randomness.

        Raises:
            ArtefactError: `finish` has not been called.
        """
        with self._answer():
            return self.from_code(self.to_code(self.check(x))).to(x.dtype)

    def edit(self, x: Tensor, direction: Tensor, strength: Tensor, rng: Rng) -> Tensor:
        """Return the image of the moved code; no randomness.

        Raises:
            ArtefactError: `finish` has not been called.
        """
        with self._answer():
            code = self.to_code(self.check(x)).flatten(1)
            return self.from_code(code + strength[:, None] * direction).to(x.dtype)

    def sample(self, rng: Rng, temperature: float = 1.0) -> Tensor:
        """Return draws from the Gaussian of the training images in the space of the eigen-images.

        Args:
            rng: one stream per image.
            temperature: of the code; 0 gives the mean image.

        Raises:
            ConfigError: a temperature outside 0 to 10.
            ArtefactError: `finish` has not been called.
        """
        require_between("temperature", temperature, 0.0, 10.0)
        with self._answer():
            z = rng.normal(self.config.directions)
            return self.from_code(temperature * self.variances.sqrt() * z)
