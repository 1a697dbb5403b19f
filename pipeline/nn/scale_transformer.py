"""Transformer over the codes of several scales, as in VAR, arXiv:2404.02905, section 3.2: all codes of a scale at once.

p(r_1 .. r_K | c) = prod_k p(r_k | r_1 .. r_(k-1), c) (eq. 6), and the codes within r_k are independent given the
coarser scales. The input at a place of scale k is f_hat of the coarser scales, averaged down to the grid of k; the
block-causal mask lets a place see its own scale and the coarser ones. Blocks are those of DiT, with adaLN on c, as in
the paper; attention is not normalised to unit length.

With `order: raster` the same network is an ordinary autoregressive model over the same codes: the input also has the
code before, and a place sees those before it only, so that every code takes a pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.nn.code_transformer import CodeTransformerConfig
from pipeline.nn.dit import Block, Last, Memory
from pipeline.nn.residual_quantise import ResidualQuantiser

# (scale, its places in the sequence, f_hat so far [B, D, *grid], logits [B, n, K]) -> codes int64 [B, n]
Chooser = Callable[[int, slice, Tensor, Tensor], Tensor]


class ScaleTransformerConfig(CodeTransformerConfig):
    """Size of the transformer, and the order in which it gives the codes."""

    width: int = Field(128, ge=4, description="channels, a multiple of heads")
    layers: int = Field(6, ge=1, description="blocks of attention and perceptron")
    order: Literal["scale", "raster"] = Field(
        "scale", description="scale: all codes of a scale in one pass; raster: one code per pass, for comparison"
    )


class ScaleTransformer(nn.Module):
    """p(codes of all scales | condition).

    Args:
        entries, code_width: of the codebook.
        counts: number of codes of each scale, coarsest first.
        config: size and order.
        condition: length of c; None for no condition.
    """

    mask: Tensor

    def __init__(
        self, entries: int, code_width: int, counts: Sequence[int], config: ScaleTransformerConfig,
        condition: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        length, width = sum(counts), config.width
        self.raster, self.counts = config.order == "raster", tuple(counts)
        self.embed = nn.Linear(code_width, width)
        self.before = nn.Linear(code_width, width, bias=False) if self.raster else None
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.condition = None if condition is None else nn.Linear(condition, width)
        self.blocks = nn.ModuleList([Block(width, config.heads) for _ in range(config.layers)])
        self.last = Last(width, entries)
        turn = torch.arange(length if self.raster else len(counts))
        if not self.raster:
            turn = turn.repeat_interleave(torch.tensor(counts))
        self.register_buffer("mask", turn[:, None] >= turn[None], persistent=False)

    @property
    def turns(self) -> int:
        """Number of passes that generate an image."""
        return sum(1 for _ in self._turns())

    def forward(self, contexts: Tensor, entries: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the logits of all codes, float32 [B, L, K].

        Args:
            contexts: f_hat of the coarser scales at each place, [B, L, D].
            entries: the entries of the codes themselves, [B, L, D]; `raster` reads the one before each place.
            c: [B, condition].
        """
        before = F.pad(entries[:, :-1], (0, 0, 1, 0)) if self.raster else None
        return self._logits(contexts, before, slice(0, len(self.position)), self._state(len(contexts), c), self.mask)

    def _state(self, rows: int, c: Tensor | None) -> Tensor:
        """Return the vector that modulates all blocks, [B, width]."""
        state = self.start.expand(rows, -1)
        return state if c is None or self.condition is None else state + self.condition(c)

    def _logits(
        self, contexts: Tensor, before: Tensor | None, at: slice, state: Tensor, mask: Tensor | None,
        memories: Sequence[Memory] = (),
    ) -> Tensor:  # fmt: skip
        x = self.embed(contexts) + self.position[at]
        if self.before is not None and before is not None:
            x = x + self.before(before)
        for i, block in enumerate(self.blocks):
            x = block(x, state, mask, memories[i] if memories else None)
        return self.last(x, state).float()

    def generate(
        self, codes: ResidualQuantiser, rows: int, choose: Chooser, c: Tensor | None = None,
        nothing: Tensor | None = None, guidance: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Return codes int64 [B, L] that `choose` takes from the logits, scale by scale.

        A pass computes the new places only: the keys and values of earlier ones are kept.

        Args:
            codes: the quantiser that says what codes add to f_hat.
            rows: B.
            choose: takes the codes of the places of a pass.
            c: [B, condition].
            nothing: [B, condition], the empty condition of classifier-free guidance.
            guidance: its weight w, see `_reader`; 0 is the conditional model, without a second pass.
        """
        read = self._reader(rows, c, nothing, guidance)
        tokens = torch.zeros(rows, 0, dtype=torch.int64, device=self.start.device)
        f_hat = torch.zeros(rows, codes.width, *codes.grid_of(-1), device=self.start.device)
        for scale, first, places in self._turns():
            contexts, at = codes.context(f_hat, scale)[:, places], slice(first + places.start, first + places.stop)
            logits = read(contexts, self._entry_before(codes, tokens), at, scale)
            tokens = torch.cat([tokens, choose(scale, at, f_hat, logits)], dim=1)
            if places.stop == self.counts[scale]:
                f_hat = f_hat + codes.enlarged(tokens[:, first:].reshape(-1, *codes.grid_of(scale)), scale)
        return tokens

    def _reader(
        self, rows: int, c: Tensor | None, nothing: Tensor | None, guidance: float
    ) -> Callable[[Tensor, Tensor | None, slice, int], Tensor]:
        """Return the function that gives the logits of a pass, and remembers the passes before.

        With guidance w and the logits l at scale k = 0 .. K - 1, they are (1 + w_k) l(c) - w_k l(nothing) with
        w_k = w k / (K - 1), as in the authors' code: the coarsest scale is not guided.
        """
        guides = guidance != 0 and c is not None and nothing is not None
        state, memories = self._state(rows, c), [Memory() for _ in self.blocks]
        if guides:
            state = torch.cat([state, self._state(rows, nothing)])

        def read(contexts: Tensor, before: Tensor | None, at: slice, scale: int) -> Tensor:
            """Return the logits [B, n, K] of the places `at`."""
            if not guides:
                return self._logits(contexts, before, at, state, None, memories)
            twice = (None if one is None else torch.cat([one, one]) for one in (contexts, before))
            given, empty = self._logits(*cast(tuple[Tensor, Tensor], tuple(twice)), at, state, None, memories).chunk(2)
            weight = guidance * scale / max(1, len(self.counts) - 1)
            return (1 + weight) * given - weight * empty

        return read

    def _entry_before(self, codes: ResidualQuantiser, tokens: Tensor) -> Tensor | None:
        """Return the entry of the last code, [B, 1, D]; 0 before the first one."""
        if not self.raster:
            return None
        last = codes.entries_of(tokens[:, -1:])
        return last if tokens.shape[1] else last.new_zeros(len(tokens), 1, codes.width)

    def _turns(self) -> Iterator[tuple[int, int, slice]]:
        """Yield the scale of each pass, the number of codes of coarser scales, and the places within the scale."""
        first = 0
        for scale, count in enumerate(self.counts):
            step = 1 if self.raster else count
            for start in range(0, count, step):
                yield scale, first, slice(start, start + step)
            first += count
