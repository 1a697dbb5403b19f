"""Capabilities of methods: small protocols, each with its own laws in `tests/contract`.

A detecting method has one of `Reconstructor`, `AnomalyMapper` and `ScanScorer`; generative stages need the others. A
method has a capability by having its functions. These rules hold for all of them:

- Images are float32 [B, C, *spatial], about [-1, 1]. Pixels that are not finite are refused (`Rejected`, code
  non-finite-pixels).
- A row of the answer depends on its own row, its own stream of `rng` and the weights: not on its neighbours, their
  order, the training mode or the global generator. The same keys give the same bits; without an `rng` there is no
  randomness.
- An answer has no gradient, except within `pipeline.nn.gradients.keep_gradients`, for attacks. A codec's has one,
  since latent models train through it: it is asked in eval mode, and checks nothing.
- Keywords beyond those listed have defaults (`steps`, `eta`, a temperature).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from pipeline.nn.rng import Rng


@runtime_checkable
class Reconstructor(Protocol):
    """A method that answers "what would this look like if it were normal?" with an image of the same shape."""

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat [B, C, *spatial] for x of that shape; a row depends on itself and its own keys only."""
        ...


@runtime_checkable
class AnomalyMapper(Protocol):
    """A method without x_hat that maps where an image is unusual."""

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return [B, 1, *spatial], higher = more anomalous."""
        ...


@runtime_checkable
class ScanScorer(Protocol):
    """A method with neither x_hat nor map that gives one number per image."""

    def score(self, x: Tensor, rng: Rng) -> Tensor:
        """Return [B], higher = more anomalous."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """A method that samples new images from randomness, and from a condition if it is conditional."""

    def sample(self, rng: Rng) -> Tensor:
        """Return new images float32 [B, C, *spatial], one per row of `rng`; another key gives another image.

        A conditional sampler also takes the keywords `about` (catalogue attributes per row, as in `Batch.about`; () is
        unconditional) or `condition` (a tensor with a row per image, as in `Batch.condition`).
        """
        ...


@runtime_checkable
class Codec(Protocol):
    """A method that encodes images as continuous codes and decodes them, as a base of latent models. Not random."""

    def to_code(self, x: Tensor) -> Tensor:
        """Return the code [B, D, *grid] of x [B, C, *spatial]; a code without a grid has a grid of size 1."""
        ...

    def from_code(self, z: Tensor) -> Tensor:
        """Return images [B, C, *spatial] of codes, which need not come from an image."""
        ...


@runtime_checkable
class Tokeniser(Protocol):
    """A method that encodes images as integers of one vocabulary, as input of a transformer. Not random."""

    @property
    def vocabulary(self) -> int:
        """Number of distinct tokens."""
        ...

    def to_tokens(self, x: Tensor) -> Tensor:
        """Return int64 tokens in [0, vocabulary): [B, *grid] for one grid, [B, L] for several, coarsest first.

        The shape of a row is the same for every image of the method's size.
        """
        ...

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return images [B, C, *spatial] of tokens, which need not come from an image."""
        ...


@runtime_checkable
class LevelTokeniser(Protocol):
    """A method that encodes images as integers of one vocabulary on several grids. Not random."""

    @property
    def vocabulary(self) -> int:
        """Number of distinct tokens of a level."""
        ...

    def to_levels(self, x: Tensor) -> list[Tensor]:
        """Return int64 tokens in [0, vocabulary) of each level, finest first: [B, *grid]."""
        ...


@runtime_checkable
class Restorer(Protocol):
    """A method that undoes a degradation: super-resolution, inpainting, deblurring, k-space recovery, paired
    translation.
    """

    def restore(self, worse: Tensor, rng: Rng, condition: Tensor | None = None) -> Tensor:
        """Return a better image [B, C', *spatial] for each degraded one, on the same grid; C' may differ from C.

        One draw from p(better | worse) where the method is random, so that an average of draws is the caller's choice.

        Args:
            worse: [B, C, *spatial]; an image of fewer pixels is enlarged to the grid first.
            rng: one stream per row; a deterministic method draws nothing.
            condition: what is known of the degradation, [B, K, *spatial] (a mask: 1 where pixels are missing) or [B, K]
                (a noise level); None for a method that needs none.
        """
        ...


@runtime_checkable
class Inpainter(Protocol):
    """A method that draws pixels for a hole though it was not trained to, from what it knows of whole images."""

    def inpaint(self, x: Tensor, mask: Tensor, rng: Rng) -> Tensor:
        """Return x [B, C, *spatial] with new pixels where `mask` is True; the others are returned unchanged.

        Hidden pixels are not read. Another key draws others.

        Args:
            x: the images.
            mask: bool [B, 1, *spatial], True where pixels are missing.
            rng: one stream per row.

        Raises:
            ConfigError: a mask of another type or shape.
        """
        ...


@runtime_checkable
class Purifier(Protocol):
    """A method that draws a normal image near a given one: noise covers what is small, and is taken away again."""

    def purify(self, x: Tensor, rng: Rng, time: float, steps: int = 5) -> Tensor:
        """Return x [B, C, *spatial] noised to `time`, above 0 (the image) to 1 (noise), and denoised in `steps` steps.

        Differentiable within `keep_gradients`, since an attack that knows it follows its gradient.

        Raises:
            ConfigError: `time` or `steps` is out of range.
        """
        ...


@runtime_checkable
class Translator(Protocol):
    """A method that translates images between named domains: scanners, modalities, or "unknown" and "normal"."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the target domains, without repetition."""
        ...

    def translate(self, x: Tensor, to: str, rng: Rng) -> Tensor:
        """Return x as an image of the domain `to`, [B, C', *spatial]; an image of that domain changes little.

        Raises:
            ConfigError: the method does not know the domain; the message lists those that it knows.
        """
        ...


@runtime_checkable
class Embedder(Protocol):
    """A method that describes an image as one vector, for retrieval, probes and editing. Not random."""

    def embed(self, x: Tensor) -> Tensor:
        """Return float32 vectors [B, D] of x [B, C, *spatial], not normalised; D depends on the configuration only."""
        ...


@runtime_checkable
class Editor(Embedder, Protocol):
    """A method that changes one attribute of an image by moving its embedding, and keeps the rest."""

    def edit(self, x: Tensor, direction: Tensor, strength: Tensor, rng: Rng) -> Tensor:
        """Return x [B, C, *spatial] with its embedding moved by strength * direction.

        With strength 0 it is the method's own reconstruction, whatever the direction.

        Args:
            x: the images.
            direction: float32 [D], in the space of `embed`.
            strength: float32 [B]; its sign says which way.
            rng: one stream per row, for what the embedding does not hold.
        """
        ...
