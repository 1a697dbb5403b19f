"""Finite scalar quantisation (Mentzer et al., arXiv:2309.15505): every channel of a code is rounded to a few values.

There is no codebook to learn and none to collapse. Notation of the paper: a channel with L values is bounded by
f(z) = L/2 tanh(z) (section 3.1; shifted by half a step for even L, appendix A.1), rounded with straight-through
gradients, and divided by floor(L/2), so that codes lie in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.nn.quantise import Quantised
from pipeline.nn.rng import Rng

STRETCH = 1e-3  # lets tanh reach the outermost values


class ScalarQuantiser(nn.Module):
    """Round each of D channels to its number of values.

    Args:
        values: L of each channel, at least 2; their product is the number of codes.
    """

    def __init__(self, values: Sequence[int]) -> None:
        super().__init__()
        count = torch.tensor(values, dtype=torch.float32)
        even = (count % 2 == 0).float()
        reach = (count - 1) * (1 + STRETCH) / 2
        self.register_buffer("reach", reach, persistent=False)
        self.register_buffer("offset", even / 2, persistent=False)
        self.register_buffer("shift", torch.atanh(even / 2 / reach), persistent=False)
        self.register_buffer("scale", (count / 2).floor(), persistent=False)
        self.register_buffer("place", torch.tensor([1, *values[:-1]]).cumprod(0), persistent=False)

    reach: Tensor
    offset: Tensor
    shift: Tensor
    scale: Tensor
    place: Tensor

    def forward(self, z: Tensor, rng: Rng | None = None) -> Quantised:
        """Return the codes of z [B, D, *spatial]; nothing is learned or drawn, so both losses are 0."""
        last = z.ndim - 1  # the exporter to ONNX does not understand movedim(1, -1)
        vectors = z.float().movedim(1, last)
        bounded = torch.tanh(vectors + self.shift) * self.reach - self.offset
        rounded = bounded + (bounded.round() - bounded).detach()
        indices = ((rounded.detach() + self.scale).round().long() * self.place).sum(dim=-1)
        nothing = torch.zeros((), device=z.device)
        return Quantised((rounded / self.scale).movedim(last, 1), indices, nothing, nothing)

    def update(self) -> None:
        """Do nothing: there is no codebook."""
