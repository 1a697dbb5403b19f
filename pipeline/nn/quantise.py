"""Vector quantisation with straight-through gradients, arXiv:1711.00937."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Quantised(NamedTuple):
    """Answer of `VectorQuantiser`: codes [B, D, *spatial], their indices [B, *spatial], and two losses."""

    codes: Tensor
    indices: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


class VectorQuantiser(nn.Module):
    """Replace each D-vector by the nearest of K codebook entries.

    Notation of the paper, eq. 3: z_e the encoder's output, e the entry chosen, sg the stop-gradient.
    `codebook_loss` is |sg[z_e] - e|^2 and moves the codebook only; `commitment_loss` is |z_e - sg[e]|^2 and moves the
    encoder only; both are means over elements. Gradients of what follows pass to z_e unchanged (section 3.2).

    Args:
        entries: K.
        width: D.
    """

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.empty(entries, width).uniform_(-1 / entries, 1 / entries))
        self.register_buffer("placed", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def place(self, z_e: Tensor, picks: Tensor) -> None:
        """Put the codebook on encoder outputs, once; entries far from the data would never be chosen and never learn.

        Args:
            z_e: [B, D, *spatial] of the first training batch.
            picks: [K] in [0, 1): which vector each entry starts from.
        """
        vectors = z_e.float().movedim(1, -1).flatten(0, -2)
        spread = vectors.std() * 0.01 * torch.linspace(-1, 1, len(picks), device=vectors.device)
        self.codebook.copy_(vectors[(picks * len(vectors)).long()] + spread[:, None])
        self.placed.fill_(True)

    def forward(self, z_e: Tensor) -> Quantised:
        """Quantise z_e [B, D, *spatial]."""
        z_e = z_e.float()
        vectors = z_e.movedim(1, -1)
        indices = self.nearest(vectors)
        e = F.embedding(indices, self.codebook)
        codebook_loss = F.mse_loss(e, vectors.detach())
        commitment_loss = F.mse_loss(vectors, e.detach())
        codes = (vectors + (e - vectors).detach()).movedim(-1, 1)
        return Quantised(codes, indices, codebook_loss, commitment_loss)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the index of the nearest entry for vectors [..., D] (eq. 1)."""
        flat = vectors.detach().reshape(-1, vectors.shape[-1])
        codebook = self.codebook.detach().float()
        distance = codebook.square().sum(dim=1) - 2 * flat @ codebook.T
        return distance.argmin(dim=1).reshape(vectors.shape[:-1])


def perplexity(indices: Tensor, entries: int) -> Tensor:
    """Return exp of the entropy of the entries in use: 1 when one serves for all, `entries` when all serve alike."""
    share = torch.bincount(indices.flatten(), minlength=entries).float() / indices.numel()
    return (-(share * share.clamp_min(1e-12).log()).sum()).exp()
