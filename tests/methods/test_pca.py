"""`pca`: scikit-learn's components and reconstruction, samples with the mean and covariance of Gaussian data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods.pca import Pca, PcaConfig
from pipeline.nn import principal_components
from pipeline.nn.principal_components import PrincipalComponents
from pipeline.nn.rng import Rng
from pipeline.types import Batch

SIZE = 16


def batches(x: Tensor, size: int) -> Iterator[Batch]:
    for part in x.split(size):
        yield Batch(part, torch.ones_like(part, dtype=torch.bool), tuple(map(str, range(len(part)))))


def fitted(x: Tensor, components: int, size: int = 7) -> Pca:
    method = PcaConfig(directions=components).build(SIZE)
    assert isinstance(method, Pca)
    method.finish(batches(x, size))
    return method


def gaussian_images(count: int, rank: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return draws of a Gaussian [count, 1, 16, 16] with a covariance of some rank, its mean and its covariance."""
    draws = torch.Generator().manual_seed(seed)
    mean = torch.linspace(-0.5, 0.5, SIZE**2)
    mixing = torch.randn(rank, SIZE**2, generator=draws) * torch.linspace(1, 0.2, rank)[:, None] / 10
    x = mean + torch.randn(count, rank, generator=draws) @ mixing
    return x.reshape(-1, 1, SIZE, SIZE), mean, mixing.T @ mixing


def test_components_and_reconstruction_are_those_of_scikit_learn() -> None:
    x, fresh = (gaussian_images(count, 30, seed)[0] for count, seed in ((50, 0), (6, 1)))
    method, theirs = fitted(x, 12), PCA(12, svd_solver="full").fit(x.flatten(1).double().numpy())
    assert_close(method.mean.double().numpy(), theirs.mean_, rtol=0, atol=1e-6)
    assert_close(method.variances.double().numpy(), theirs.explained_variance_, rtol=1e-4, atol=1e-8)
    flat = fresh.flatten(1).double().numpy()
    expected = theirs.inverse_transform(theirs.transform(flat)).reshape(-1, 1, SIZE, SIZE)
    assert_close(method.reconstruct(fresh, Rng(range(6))).double().numpy(), expected, rtol=0, atol=1e-5)
    signs = np.sign((theirs.components_ * method.directions.numpy()).sum(axis=1))
    assert_close(method.embed(fresh).double().numpy(), theirs.transform(flat) * signs, rtol=0, atol=1e-5)


def test_codes_of_the_eigen_images_come_back_exactly_and_the_residual_is_orthogonal_to_them() -> None:
    x = gaussian_images(40, 30)[0]
    method = fitted(x, 10)
    z = Rng(range(3)).normal(10, 1, 1)
    assert_close(method.to_code(method.from_code(z)), z, rtol=0, atol=1e-5)
    residual = (x - method.reconstruct(x, Rng(range(40)))).flatten(1)
    assert (residual @ method.directions.T).abs().max() < 1e-5 < residual.abs().max()


def test_samples_have_the_mean_and_the_covariance_of_gaussian_data() -> None:
    x, mean, covariance = gaussian_images(4000, 5)
    samples = fitted(x, 5, size=500).sample(Rng(range(4000))).flatten(1)
    spread = covariance.diagonal().max()
    assert (samples.mean(dim=0) - mean).abs().max() < 5 * (2 * spread / 4000) ** 0.5
    assert (torch.cov(samples.T) - covariance).abs().max() < 5 * spread * (2 / 4000) ** 0.5
    assert (torch.cov(x.flatten(1).T) - torch.cov(samples.T)).norm() < 0.1 * covariance.norm()


@pytest.mark.parametrize("batch_size", [1, 16, 90])
def test_compressing_on_the_way_loses_nothing_of_data_of_low_rank(
    monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    monkeypatch.setattr(principal_components, "ROWS", 40)
    x = (gaussian_images(90, 12)[0] + 3 * torch.linspace(0, 1, 90)[:, None, None, None]).flatten(1)
    moments = PrincipalComponents(10)
    for part in x.split(batch_size):
        moments.add(part)
        assert len(moments.rows) <= 40
    ours, theirs = moments.result(), PCA(10, svd_solver="full").fit(x.double().numpy())
    assert ours.count == 90
    assert_close(ours.mean.double().numpy(), theirs.mean_, rtol=0, atol=1e-5)
    assert_close(ours.variances.double().numpy(), theirs.explained_variance_, rtol=1e-3, atol=1e-6)
    assert_close(ours.components @ ours.components.T, torch.eye(10), rtol=0, atol=1e-5)


def test_one_image_is_its_own_mean_and_few_images_have_few_components() -> None:
    x = gaussian_images(3, 12)[0]
    alone = fitted(x[:1], 4)
    assert_close(alone.sample(Rng([1, 2])), x[:1].expand(2, -1, -1, -1))
    few = fitted(x, 4)
    assert (few.variances > 0).tolist() == [True, True, False, False]
    assert_close(few.reconstruct(x, Rng(range(3))), x, rtol=0, atol=1e-5)


def test_temperature_shrinks_to_the_mean_and_absurd_ones_are_refused() -> None:
    x = gaussian_images(30, 12)[0]
    method = fitted(x, 8)
    warm, half, cold = (method.sample(Rng([1]), temperature=t) for t in (1.0, 0.5, 0.0))
    assert_close(cold, x.mean(dim=0, keepdim=True), rtol=0, atol=1e-6)
    assert_close(half - cold, 0.5 * (warm - cold))
    for value in (-1.0, 11.0, float("nan")):
        with pytest.raises(ConfigError, match="temperature"):
            method.sample(Rng([1]), temperature=value)


def test_before_it_has_seen_images_it_refuses_to_answer() -> None:
    method = PcaConfig(directions=4).build(SIZE)
    assert isinstance(method, Pca)
    for answer in (lambda: method.sample(Rng([1])), lambda: method.embed(torch.zeros(1, 1, SIZE, SIZE))):
        with pytest.raises(ArtefactError, match="Train it"):
            answer()
