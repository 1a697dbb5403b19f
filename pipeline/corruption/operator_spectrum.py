"""Singular values and vectors of degradations, where they are known in closed form, for `pipeline.diffusion.ddrm`."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from pipeline.corruption.degrade_operators import Chain, FewFrequencies, Hidden, InPlane, Operator
from pipeline.diffusion.ddrm import Spectrum


def spectrum_of(operator: Operator) -> Spectrum | None:
    """Return the spectrum of one degradation, or of none; None for several in a row, whose vectors differ."""
    if isinstance(operator, Chain):
        if len(operator.parts) > 1:
            return None
        return spectrum_of(operator.parts[0]) if operator.parts else Spectrum(torch.ones(()), _same, _same, _same)
    if isinstance(operator, InPlane):
        return _of_matrices(operator)
    if isinstance(operator, Hidden):
        return Spectrum(1 - operator.missing, _same, _same, _same)
    return _of_frequencies(operator) if isinstance(operator, FewFrequencies) else None


def _same(x: Tensor) -> Tensor:
    return x


def _of_matrices(operator: InPlane) -> Spectrum:
    """A = R x C^T: the singular vectors of a plane are the outer products of those of rows and columns."""
    (u, s, v), (p, q, w) = (_decompose(one) for one in (operator.rows, operator.columns))
    values = s[:, None] * q

    def read(y: Tensor) -> Tensor:
        inner = u.to(y).T @ y @ p.to(y)
        whole = y.new_zeros(*y.shape[:-2], *values.shape)
        whole[..., : inner.shape[-2], : inner.shape[-1]] = inner
        return whole / torch.where(values > 0, values, 1.0).to(y)

    return Spectrum(values, lambda x: v.to(x) @ x @ w.to(x).T, lambda x: v.to(x).T @ x @ w.to(x), read)


def _decompose(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U [P, P], the singular values padded to [H], and V^T [H, H]."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=True)
    return u.float(), torch.cat([s, s.new_zeros(len(v) - len(s))]).float(), v.float()


def _of_frequencies(operator: FewFrequencies) -> Spectrum:
    """The projection onto measured frequencies: s is 1 or 0. A real image stays real, since the mask is symmetric."""
    rotate = partial(torch.fft.fft2, norm="ortho")
    return Spectrum(operator.measured.float(), rotate, lambda x: torch.fft.ifft2(x, norm="ortho").real, rotate)
