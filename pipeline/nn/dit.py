"""DiT, a denoising transformer: Peebles and Xie, "Scalable diffusion models with transformers", arXiv:2212.09748.

Blocks with adaLN-Zero (section 3.2, figure 3): a linear layer on the condition (time and optional attributes) gives
shift, scale and gate of each block (beta, gamma and alpha in the paper). It is initialised to zero, so that every block
starts as the identity, and so is the last layer, so that the output starts at zero. Position embeddings are fixed sines
and cosines. The paper's network also predicts a variance; this one does not, since L_simple (arXiv:2006.11239) does not
use it.

Why by hand: `DiTTransformer2DModel` of diffusers takes class labels only, not the vectors that our conditions are, and
two-dimensional grids only; this one takes volumes too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.nn.patches import fold, unfold

MLP_RATIO = 4  # of the paper
FREQUENCIES = 256  # of the time embedding, as in the paper's code


class DiffusionTransformer(nn.Module):
    """(x_t, t, c) -> an image of the same shape.

    Args:
        size: edge of the grid; a multiple of `patch`.
        channels: image channels.
        spatial_dims: 2 or 3.
        patch: edge of a token.
        width, depth, heads: size of the transformer; width is a multiple of 2 x spatial_dims.
        condition: length of c; None for no condition.

    Raises:
        ConfigError: the width does not divide into sines and cosines for every axis.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        spatial_dims: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        condition: int | None = None,
    ) -> None:
        super().__init__()
        if width % (2 * spatial_dims):
            step = math.lcm(2 * spatial_dims, heads)
            raise ConfigError(
                f"A transformer of width {width} cannot embed {spatial_dims} axes: the width must be a multiple of "
                f"{2 * spatial_dims}, and of its {heads} heads. Set width to {width - width % step + step}."
            )
        self.patch, self.grid = patch, (size // patch,) * spatial_dims
        pixels = channels * patch**spatial_dims
        self.embed = nn.Linear(pixels, width)
        self.register_buffer("position", positions(self.grid, width), persistent=False)
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = None if condition is None else nn.Linear(condition, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.last = Last(width, pixels)

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Return [B, C, *spatial] for x_t of that shape, t [B] and c [B, condition]."""
        from monai.networks.nets.diffusion_model_unet import get_timestep_embedding

        tokens = self.embed(fold(x_t, self.patch).flatten(2).transpose(1, 2)) + self.position
        condition = self.time(get_timestep_embedding(t, FREQUENCIES).to(x_t.dtype))
        if self.condition is not None and c is not None:
            condition = condition + self.condition(c)
        for block in self.blocks:
            tokens = block(tokens, condition)
        pixels = self.last(tokens, condition).transpose(1, 2)
        return unfold(pixels.reshape(len(x_t), -1, *self.grid), self.patch)


class Memory:
    """What a block keeps of the tokens that it saw before: keys and values [B, heads, N, d], and its modulation."""

    def __init__(self) -> None:
        self.modulation: Tensor | None = None
        self.pairs: tuple[Tensor, Tensor] | None = None

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values of all tokens so far, those of k and v included, and keep them."""
        if self.pairs is not None:
            k, v = torch.cat([self.pairs[0], k], dim=2), torch.cat([self.pairs[1], v], dim=2)
        self.pairs = k, v
        return self.pairs


class Block(nn.Module):
    """x + alpha_1 attention(gamma_1, beta_1), then x + alpha_2 MLP(gamma_2, beta_2); the identity at initialisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(approximate="tanh"), nn.Linear(MLP_RATIO * width, width)
        )
        self.modulation = zeroed(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None = None, memory: Memory | None = None) -> Tensor:
        """Return tokens [B, N, width] for tokens of that shape and a condition [B, width].

        Args:
            x: the tokens.
            condition: one per row.
            mask: bool [N, N], True where a token (row) sees another one (column); None: each sees all.
            memory: of the tokens before these, which these see too; it is extended. Needs the same condition each time.
        """
        beta_1, gamma_1, alpha_1, beta_2, gamma_2, alpha_2 = self._modulation(condition, memory).chunk(6, dim=-1)
        x = x + alpha_1 * self.attention(modulate(self.norm(x), beta_1, gamma_1), mask, memory)
        return x + alpha_2 * self.mlp(modulate(self.norm(x), beta_2, gamma_2))

    def _modulation(self, condition: Tensor, memory: Memory | None) -> Tensor:
        if memory is None:
            return self.modulation(F.silu(condition))[:, None]
        if memory.modulation is None:
            memory.modulation = self.modulation(F.silu(condition))[:, None]
        return memory.modulation

    def attention(self, x: Tensor, mask: Tensor | None = None, memory: Memory | None = None) -> Tensor:
        """Return multi-head self-attention over tokens [B, N, width], and over those that `memory` has."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if memory is not None:
            k, v = memory.extended(k, v)
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class Last(nn.Module):
    """Modulated norm and a linear layer to pixels, both zero at initialisation."""

    def __init__(self, width: int, pixels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.linear = zeroed(nn.Linear(width, pixels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return [B, N, pixels]."""
        beta, gamma = self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1)
        return self.linear(modulate(self.norm(x), beta, gamma))


def modulate(x: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """Return (1 + gamma) x + beta."""
    return x * (1 + gamma) + beta


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Set a layer to zero and return it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def positions(grid: tuple[int, ...], width: int) -> Tensor:
    """Return sine-cosine embeddings [1, N, width] of the cells of a grid, a share of the width for each axis."""
    share = width // len(grid)
    rates = 10_000 ** (-torch.arange(share // 2, dtype=torch.float64) / (share // 2))
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in grid], indexing="ij")
    angles = [axis.flatten()[:, None] * rates for axis in axes]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()[None]
