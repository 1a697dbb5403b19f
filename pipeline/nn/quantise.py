"""Vector quantisation with straight-through gradients, arXiv:1711.00937, and three ways to avoid dead codes.

Why by hand: MONAI's `EMAQuantizer` learns by moving averages only, updates the codebook inside `forward`, before the
optimiser's step, and never revives an entry. Here the codebook may learn by gradient, and every draw (where entries are
placed or revived) comes from the batch's own `Rng`, so that a training resumes bit for bit.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.nn.rng import Rng

SMALLEST = 1e-12  # an entry whose moving usage is below this is left unchanged


class CodebookConfig(Config):
    """Learning of a codebook."""

    learn: Literal["gradient", "ema"] = Field(
        "gradient",
        description="gradient: the codebook term of eq. 3; ema: moving averages, appendix A.1, without that term",
    )
    decay: float = Field(0.99, ge=0, lt=1, description="gamma of the moving averages, per step")
    revive_below: float = Field(
        0.0, ge=0, le=1, description="an entry used less than this fraction of its fair share is revived; 0 never"
    )


class Quantised(NamedTuple):
    """Output of `VectorQuantiser`: codes [B, D, *spatial], their indices [B, *spatial], and two losses."""

    codes: Tensor
    indices: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


class VectorQuantiser(nn.Module):
    """Replace each D-vector by the nearest of K codebook entries.

    Notation of the paper, eq. 3: z_e the encoder's output, e the entry chosen, sg the stop-gradient.
    `codebook_loss` is |sg[z_e] - e|^2 and moves the codebook only; `commitment_loss` is |z_e - sg[e]|^2 and moves the
    encoder only; both are means over elements. Gradients from later layers pass to z_e unchanged (section 3.2).

    With `learn: ema` an entry is the moving average of the vectors that chose it (appendix A.1, eq. 6-8): N_i, m_i and
    e_i = m_i / N_i, here with counts in units of an entry's fair share, which cancels out. A dead entry, one whose N_i
    falls below `revive_below`, is moved to an encoder output that the batch's `Rng` draws (as in Jukebox,
    arXiv:2005.00341, section 3.1), and starts with a fair share, so that it has time to be chosen. `forward` records
    the statistics, and `update` applies them after the optimiser's step.

    Args:
        entries: K.
        width: D.
        config: how the codebook learns.
    """

    codebook: Tensor
    sums: Tensor
    placed: Tensor
    usage: Tensor
    noted_usage: Tensor
    noted_sums: Tensor
    noted_spares: Tensor

    def __init__(self, entries: int, width: int, config: CodebookConfig | None = None) -> None:
        super().__init__()
        self.config = config or CodebookConfig()
        start = torch.empty(entries, width).uniform_(-1 / entries, 1 / entries)
        if self.learns_by_ema:
            self.register_buffer("codebook", start)
            self.register_buffer("sums", start.clone())
        else:
            self.codebook = nn.Parameter(start)
        self.register_buffer("placed", torch.zeros((), dtype=torch.bool))
        if self.counts_usage:
            self.register_buffer("usage", torch.ones(entries))
            # Buffers rather than attributes, since processes that train together average them before the step.
            self.register_buffer("noted_usage", torch.zeros(entries), persistent=False)
            self.register_buffer("noted_sums", torch.zeros(entries, width), persistent=False)
            self.register_buffer("noted_spares", torch.zeros(entries, width), persistent=False)
        self.noted = False

    @property
    def learns_by_ema(self) -> bool:
        """Whether the codebook is updated by moving averages, without a gradient."""
        return self.config.learn == "ema"

    @property
    def counts_usage(self) -> bool:
        """Whether moving averages of the entries' use are kept."""
        return self.learns_by_ema or self.config.revive_below > 0

    @torch.no_grad()
    def place(self, z_e: Tensor, picks: Tensor) -> None:
        """Initialise the codebook with encoder outputs, once; entries far from the data would never be chosen or learn.

        Args:
            z_e: [B, D, *spatial] of the first training batch.
            picks: [K] in [0, 1): which vector each entry starts from.
        """
        vectors = _vectors(z_e)
        spread = vectors.std(correction=0) * 0.01 * torch.linspace(-1, 1, len(picks), device=vectors.device)
        self.codebook.copy_(_picked(vectors, picks) + spread[:, None])
        if self.learns_by_ema:
            self.sums.copy_(self.codebook)
        self.placed.fill_(True)

    def begin(self, z_e: Tensor, rng: Rng | None) -> None:
        """Initialise the codebook with vectors of z_e [B, D, *spatial] that `rng` draws, in the first training step."""
        if self.training and rng is not None and not self.placed:
            self.place(z_e, _picks(rng.fork("place"), len(self.codebook)))

    def forward(self, z_e: Tensor, rng: Rng | None = None) -> Quantised:
        """Quantise z_e [B, D, *spatial]; in training mode and with `rng`, initialise the codebook and record
        its usage.
        """
        z_e = z_e.float()
        last = z_e.ndim - 1  # the exporter to ONNX does not understand movedim(1, -1)
        vectors = z_e.movedim(1, last)
        self.begin(z_e, rng)
        indices = self.nearest(vectors)
        self.note(z_e, indices, rng)
        e = F.embedding(indices, self.codebook)
        codebook_loss = F.mse_loss(e, vectors.detach())
        commitment_loss = F.mse_loss(vectors, e.detach())
        codes = (vectors + (e - vectors).detach()).movedim(last, 1)
        return Quantised(codes, indices, codebook_loss, commitment_loss)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the index of the nearest entry for vectors [..., D] (eq. 1)."""
        flat = vectors.detach().reshape(-1, vectors.shape[-1])
        codebook = self.codebook.detach().float()
        distance = codebook.square().sum(dim=1) - 2 * flat @ codebook.T
        return distance.argmin(dim=1).reshape(vectors.shape[:-1])

    def embed(self, indices: Tensor) -> Tensor:
        """Return the entries [B, D, *spatial] of indices [B, *spatial]."""
        return F.embedding(indices, self.codebook).movedim(indices.ndim, 1)

    @torch.no_grad()
    def update(self) -> None:
        """Apply the statistics from `forward`; call it after the optimiser's step, whose loss used the old codebook."""
        if not self.noted:
            return
        gamma = self.config.decay
        self.usage.lerp_(self.noted_usage, 1 - gamma)
        if self.learns_by_ema:
            self.sums.lerp_(self.noted_sums, 1 - gamma)
            alive = (self.usage > SMALLEST)[:, None]
            mean = self.sums / self.usage.clamp_min(SMALLEST)[:, None]
            self.codebook.copy_(torch.where(alive, mean, self.codebook))
        self._revive()
        self.noted = False

    def _revive(self) -> None:
        dead = (self.usage < self.config.revive_below)[:, None]
        self.codebook.copy_(torch.where(dead, self.noted_spares, self.codebook))
        if self.learns_by_ema:
            self.sums.copy_(torch.where(dead, self.noted_spares, self.sums))
        self.usage.masked_fill_(dead[:, 0], 1.0)

    @torch.no_grad()
    def note(self, z_e: Tensor, indices: Tensor, rng: Rng | None) -> None:
        """Record for `update` which entries z_e [B, D, *spatial] chose; outside training and without `rng`, nothing."""
        if not (self.training and rng is not None and self.counts_usage):
            return
        vectors, chosen, entries = _vectors(z_e), indices.flatten(), len(self.codebook)
        share = entries / len(vectors)
        self.noted_usage.copy_(torch.bincount(chosen, minlength=entries) * share)
        self.noted_sums.zero_().index_add_(0, chosen, vectors * share)
        self.noted_spares.copy_(_picked(vectors, _picks(rng.fork("revive"), entries)))
        self.noted = True


def _vectors(z_e: Tensor) -> Tensor:
    return z_e.detach().float().movedim(1, -1).flatten(0, -2)


def _picks(rng: Rng, count: int) -> Tensor:
    """Draw [count] from [0, 1), as evenly from the rows' streams as possible."""
    return rng.uniform(count // len(rng) + 1).flatten()[:count]


def _picked(vectors: Tensor, picks: Tensor) -> Tensor:
    return vectors[(picks.to(vectors.device) * len(vectors)).long().clamp_max(len(vectors) - 1)]


def perplexity(indices: Tensor, entries: int) -> Tensor:
    """Return exp of the entropy of the entries in use: 1 if one entry is always used, `entries` if all are used
    equally.
    """
    share = torch.bincount(indices.flatten(), minlength=entries).float() / indices.numel()
    return (-(share * share.clamp_min(1e-12).log()).sum()).exp()
