"""The masked-token transformer as a method of the training loop, and the sequences that it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.methods.base import Method, MethodConfig, Phase
from pipeline.nn.masked_tokens import MaskedTokenTransformer
from pipeline.nn.rng import Rng
from pipeline.training.config import TrainingConfig
from pipeline.training.fitting import fit
from pipeline.types import Batch

CLASS = "class"


class MaskedCodesConfig(MethodConfig):
    """Size of the transformer, and what it learns."""

    name: Literal["masked_codes"] = "masked_codes"
    learns: Literal["codes", "classes"] = Field("codes", description="hidden codes, or the class of a sequence")
    vocabulary: int = Field(256, ge=2, description="number of codes")
    length: int = Field(64, ge=2, description="codes of a sequence")
    classes: int = Field(2, ge=2, description="number of classes")
    width: int = Field(96, ge=8, description="width of the transformer")
    layers: int = Field(3, ge=1, description="its layers")
    heads: int = Field(4, ge=1, description="heads of attention")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of values that training drops")
    hidden: float = Field(0.5, gt=0, lt=1, description="share of the codes that are hidden in pre-training")
    lr: float = Field(5e-4, gt=0, description="learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="its weight decay")


class MaskedCodes(Method):
    """Learns hidden codes, or classes, of sequences of codes that travel as images [B, 1, L]."""

    config: MaskedCodesConfig

    def __init__(self, config: MaskedCodesConfig, seed: int = 0) -> None:
        super().__init__(config, config.length, 1, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = MaskedTokenTransformer(
                config.vocabulary,
                config.length,
                config.width,
                config.layers,
                config.heads,
                config.classes,
                config.dropout,
            )
        self.phases = (Phase("train", lr=config.lr, weight_decay=config.weight_decay),)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the cross-entropy of hidden codes, or of classes."""
        codes = batch.images[:, 0].long()
        if self.config.learns == "classes":
            classes = torch.tensor([int(row[CLASS]) for row in batch.about], device=codes.device)
            return {"total": F.cross_entropy(self.network.classify(codes).float(), classes)}
        hidden = rng.fork("hidden").uniform(codes.shape[1]) < self.config.hidden
        hidden = hidden.reshape(codes.shape).to(codes.device)
        logits = self.network.fill(codes, hidden).float()
        return {"total": F.cross_entropy(logits[hidden], codes[hidden])}


class Sequences:
    """Sequences of codes, int [N, L], and their classes, as the training loop reads them."""

    def __init__(self, codes: Tensor, classes: Sequence[int]) -> None:
        self._codes, self._classes = codes.float(), classes

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._codes[index][None]
        return {
            "image": row,
            "body": torch.ones_like(row, dtype=torch.bool),
            "id": str(index),
            "about": {CLASS: self._classes[index]},
        }


def learn(
    config: MaskedCodesConfig, data: Sequences, training: TrainingConfig, folder: Path, start: MaskedCodes | None = None
) -> MaskedCodes:
    """Train a transformer, from the weights of `start` where it is given; an interrupted training continues."""
    method = MaskedCodes(config, training.seed)
    if start is not None:
        method.load_state_dict(start.state_dict())
    return cast(MaskedCodes, fit(method, data, None, training, folder).method)


def summarise(method: MaskedCodes, codes: Tensor) -> Tensor:
    """Return what a transformer sees in sequences, without gradients: [N, 2 width]."""
    with method.inference():
        return method.network.summary(codes)


def predict(method: MaskedCodes, codes: Tensor) -> Tensor:
    """Return the likeliest class of each sequence, [N]."""
    with method.inference():
        return method.network.classify(codes).argmax(dim=1)
