"""Gaussian of features at each position of a grid, shrunk towards the one that all positions share.

With n images at a position, their mean m and scatter S about it, and the shared mean m0 and covariance C0 as prior
images, the estimates are (n m + k0 m0) / (n + k0) and (S + k C0) / (n + k): those of a normal-inverse-Wishart prior
without its cross term (Murphy 2012, section 4.6.3). A position that no image covers has the shared Gaussian.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-4  # added to variances, relative to the shared ones: a feature may be constant, or there may be one image
MEAN_IMAGES = 1.0  # k0: a position's own mean is known from few images


class Moments:
    """Count, sum and summed outer products of vectors at each position, in float64."""

    def __init__(self) -> None:
        self.count, self.total, self.outer = torch.zeros(0), torch.zeros(0), torch.zeros(0)

    def add(self, vectors: Tensor, inside: Tensor) -> None:
        """Add vectors [B, L, F] at the positions `inside`, bool [B, L]."""
        chosen = vectors.double() * inside[..., None]
        new = (
            inside.double().sum(dim=0),
            chosen.sum(dim=0),
            torch.einsum("blf,blg->lfg", chosen, chosen),
        )
        if len(self.count):
            new = (self.count + new[0], self.total + new[1], self.outer + new[2])
        self.count, self.total, self.outer = new

    def shared(self) -> tuple[Tensor, Tensor]:
        """Return mean [F] and covariance [F, F] over all positions."""
        n = self.count.sum()
        mean = self.total.sum(dim=0) / n
        return mean, self.outer.sum(dim=0) / n - torch.outer(mean, mean)

    def shrunk(self, prior_images: float) -> tuple[Tensor, Tensor]:
        """Return means [L, F] and covariances [L, F, F], shrunk towards the shared ones by `prior_images` images.

        The covariance that they are shrunk towards is the mean of those within the positions.
        """
        centre, _ = self.shared()
        n = self.count[:, None]
        own = self.total / n.clamp_min(1)
        scatter = self.outer - n[..., None] * own[:, :, None] * own[:, None, :]
        within = scatter.sum(dim=0) / self.count.sum()
        mean = (self.total + MEAN_IMAGES * centre) / (n + MEAN_IMAGES)
        return mean, (scatter + prior_images * within) / (n[..., None] + prior_images)


def whitening(covariance: Tensor, shared: Tensor) -> Tensor:
    """Return W with W^T W = (covariance + floor)^-1, [..., F, F], lower triangular.

    The floor is that of the `shared` covariance [F, F], which varies even if the images at a position do not.
    """
    floor = FLOOR * shared.diagonal().mean().clamp_min(1e-6)
    unit = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance + floor * unit), unit, upper=False)


def mahalanobis(vectors: Tensor, mean: Tensor, white: Tensor) -> Tensor:
    """Return |W (x - mean)| of vectors [B, L, F]: [B, L]; mean [L, F] and W [L, F, F], or one for all positions."""
    return torch.einsum("lfg,blg->blf", white, vectors - mean).norm(dim=2)
