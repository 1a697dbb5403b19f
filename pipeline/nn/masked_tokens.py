"""Transformer that reads codes in both directions: it fills in hidden ones, or names the class of the whole.

The pre-training of BERT on the units of a codec, as VQ-MAE-S does for speech (arXiv:2305.03568): a share of the codes
is replaced by a mask, and the network names them from what is left. Deviations: the encoder sees the masked places too
(their decoder is one layer here), and the loss is over masked codes of one channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaskedTokenTransformer(nn.Module):
    """Codes [B, L] -> features [B, L, width], logits of codes, or logits of classes.

    Args:
        vocabulary: number of codes; index `vocabulary` is the mask.
        length: L.
        width, layers, heads: of the transformer.
        classes: number of classes of a whole sequence.
        dropout: share of values that training drops.
    """

    def __init__(
        self, vocabulary: int, length: int, width: int, layers: int, heads: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.mask = vocabulary
        self.embed = nn.Embedding(vocabulary + 1, width)
        self.places = nn.Parameter(torch.randn(1, length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.to_codes = nn.Linear(width, vocabulary)
        self.to_classes = nn.Linear(2 * width, classes)

    def features(self, codes: Tensor) -> Tensor:
        """Return what the network sees in each place, [B, L, width]."""
        return self.encoder(self.embed(codes) + self.places)

    def summary(self, codes: Tensor) -> Tensor:
        """Return mean and maximum over the places, [B, 2 width]."""
        seen = self.features(codes)
        return torch.cat([seen.mean(dim=1), seen.amax(dim=1)], dim=1)

    def fill(self, codes: Tensor, hidden: Tensor) -> Tensor:
        """Return logits [B, L, vocabulary] of codes of which those with `hidden` [B, L] are masked."""
        return self.to_codes(self.features(codes.masked_fill(hidden, self.mask)))

    def classify(self, codes: Tensor) -> Tensor:
        """Return logits of the classes, [B, classes]."""
        return self.to_classes(self.summary(codes))
