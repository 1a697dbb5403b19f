"""Drawing of a code from logits, with the temperature and the truncations of language models."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.nn.sampling_options import require_between


def require_drawing(temperature: float, top_k: int, top_p: float) -> None:
    """Check the options of `draw_code`.

    Raises:
        ConfigError: one of them is out of range; the message names it.
    """
    require_between("temperature", temperature, 0.0, above=True)
    require_between("top_k", top_k, 0)
    require_between("top_p", top_p, 0.0, 1.0, above=True)


def draw_code(logits: Tensor, u: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Return codes int64 [...] at the quantiles u of the distribution of logits [..., K].

    Args:
        logits: unnormalised log-probabilities.
        u: [...] uniform in [0, 1).
        temperature: the logits are divided by it; lower means likelier codes.
        top_k: only this many likeliest codes are drawn; 0 is all.
        top_p: only the likeliest codes that together have this probability are drawn; 1 is all.
    """
    p = (logits.double() / temperature).softmax(dim=-1)
    if top_k and top_k < p.shape[-1]:
        p = p.where(p >= p.topk(top_k, dim=-1).values[..., -1:], 0.0)
    if top_p < 1:
        ordered, order = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # 0 for the likeliest code, which is always left
        ordered = ordered.where(before < top_p * p.sum(dim=-1, keepdim=True), 0.0)
        p = torch.zeros_like(p).scatter(-1, order, ordered)
    cdf = p.cumsum(dim=-1)
    threshold = u.double()[..., None] * cdf[..., -1:]
    return torch.searchsorted(cdf, threshold, right=True)[..., 0].clamp_max(p.shape[-1] - 1)
