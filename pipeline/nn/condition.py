"""Attributes of an image as one vector, for conditional VAEs and classifier-free guidance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng

About = Sequence[Mapping[str, Any]]
Attribute = Literal["modality", "body_part", "view", "sex", "age_band", "relative_position"]
# The lists and their order define the shape and meaning of trained weights: adding a word breaks trained models.
VOCABULARY: dict[str, tuple[str, ...]] = {
    "modality": ("CR", "CT", "DX", "MG", "MR", "NM", "PT", "RF", "US", "XA"),
    "body_part": (
        "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "BRAIN", "BREAST", "CHEST", "CSPINE", "ELBOW", "FOOT", "HAND", "HEAD",
        "HEART", "HIP", "KNEE", "LIVER", "LSPINE", "LUNG", "NECK", "PELVIS", "PROSTATE", "SHOULDER", "SKULL", "SPINE",
        "THORAX", "TSPINE", "WRIST",
    ),
    "view": ("AP", "CC", "LAT", "LATERAL", "LL", "LLD", "LLO", "ML", "MLO", "PA", "RL", "RLD", "RLO", "LM"),
    "sex": ("F", "M", "O"),
    "age_band": ("0-17", "18-39", "40-59", "60-79", "80+"),
}  # fmt: skip
WAVES = 4  # sine and cosine of pi, 2 pi, 4 pi and 8 pi times the position


class ConditionConfig(Config):
    """Attributes on which a method is conditioned, and how often they are hidden."""

    use: tuple[Attribute, ...] = Field(
        ("modality", "body_part", "view", "sex", "age_band", "relative_position"),
        min_length=1,
        description="attributes that the method receives",
    )
    width: int = Field(16, ge=1, description="length of the condition's vector")
    drop: float = Field(0.1, ge=0, le=1, description="share of training images in which each attribute is hidden")
    drop_all: float = Field(0.1, ge=0, le=1, description="share of training images in which all of them are hidden")


class Attributes(NamedTuple):
    """Attributes of each row: words int64 [B, F], 0 = unknown; position float32 [B], NaN = unknown."""

    words: Tensor
    position: Tensor


class Conditions(nn.Module):
    """Attributes -> [B, width]: the sum of one learned vector per attribute; "unknown" is a word with its own vector.

    A missing attribute, a word outside the vocabulary and a word that no training image had count as unknown, since
    their vectors would be untrained. "unknown" itself is trained by hiding attributes at random.
    """

    def __init__(self, config: ConditionConfig) -> None:
        super().__init__()
        self.config = config
        self.fields = tuple(name for name in VOCABULARY if name in config.use)
        self.words = nn.ModuleDict(
            {name: nn.Embedding(len(VOCABULARY[name]) + 1, config.width) for name in self.fields}
        )
        for name in self.fields:
            # A share of images rather than a flag, since processes that train together average it.
            self.register_buffer(f"seen_{name}", torch.zeros(len(VOCABULARY[name]) + 1))
        if "relative_position" in config.use:
            self.wave = nn.Linear(2 * WAVES, config.width)
            self.nowhere = nn.Parameter(torch.randn(config.width))

    def forward(self, about: About, rows: int, rng: Rng | None = None) -> Tensor:
        """Return the vectors [rows, width] of `about`, which has one mapping per row, or is () if nothing is known.

        With `rng` (in training), attributes are hidden at random; in training mode their words are recorded as seen.

        Raises:
            ConfigError: the length of `about` is neither 0 nor `rows`.
        """
        attributes = self.read(about, rows)
        if self.training:
            self._note(attributes)
        attributes = self._trained(attributes)
        return self.vector(attributes if rng is None else self.hide(attributes, rng))

    def read(self, about: About, rows: int) -> Attributes:
        """Look up the words; a word that is missing or not in the vocabulary is unknown."""
        if about and len(about) != rows:
            raise ConfigError(f"{rows} images have attributes for {len(about)}; give one mapping per image.")
        each = about or [{}] * rows
        words = [[_index(name, row.get(name)) for name in self.fields] for row in each]
        position = [_position(row.get("relative_position")) for row in each]
        device = next(self.parameters()).device
        shape = (rows, len(self.fields))
        indices = torch.tensor(words, dtype=torch.int64).reshape(shape)
        return Attributes(indices.to(device), torch.tensor(position).to(device))

    def hide(self, attributes: Attributes, rng: Rng) -> Attributes:
        """Hide each attribute with probability `drop`, and all of a row with `drop_all`; randomness comes from the
        row's key.
        """
        draws = rng.fork("conditions").uniform(len(self.fields) + 2)
        hidden = (draws[:, :-1] < self.config.drop) | (draws[:, -1:] < self.config.drop_all)
        return Attributes(
            attributes.words.masked_fill(hidden[:, :-1], 0), attributes.position.masked_fill(hidden[:, -1], math.nan)
        )

    def vector(self, attributes: Attributes) -> Tensor:
        """Return the sum of the attributes' vectors, [B, width]."""
        parts = [self.words[name](attributes.words[:, i]) for i, name in enumerate(self.fields)]
        if "relative_position" in self.config.use:
            has_position = ~attributes.position.isnan()
            at = self.wave(_waves(attributes.position.nan_to_num()))
            parts.append(torch.where(has_position[:, None], at, self.nowhere))
        return torch.stack(parts).sum(dim=0)

    @torch.no_grad()
    def _note(self, attributes: Attributes) -> None:
        for i, name in enumerate(self.fields):
            seen = getattr(self, f"seen_{name}")
            seen.add_(torch.bincount(attributes.words[:, i], minlength=len(seen)) / len(attributes.words)).clamp_(
                max=1.0
            )

    def _trained(self, attributes: Attributes) -> Attributes:
        columns = [
            column * (getattr(self, f"seen_{name}")[column] > 0)
            for name, column in zip(self.fields, attributes.words.unbind(dim=1), strict=True)
        ]
        return attributes._replace(words=torch.stack(columns, dim=1)) if columns else attributes


def _index(name: str, word: object) -> int:
    return VOCABULARY[name].index(word) + 1 if word in VOCABULARY[name] else 0


def _position(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _waves(position: Tensor) -> Tensor:
    """Return sines and cosines of increasing frequency, [B, 2 WAVES]."""
    angle = math.pi * position[:, None] * 2.0 ** torch.arange(WAVES, device=position.device)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
