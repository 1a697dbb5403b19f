"""Laws of `reconstruct` over every registered method that has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from pipeline.errors import ConfigError, Rejected, RejectionCode
from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.capabilities import AnomalyMapper, Reconstructor, ScanScorer
from pipeline.methods.method_registry import build_method
from pipeline.nn.rng import Rng
from pipeline.types import Batch


@pytest.fixture
def reconstructor(method: Method) -> Method:
    """Skip methods of the other two capabilities."""
    if not isinstance(method, Reconstructor):
        pytest.skip("has no reconstruction")
    return method


def rng_of(batch: Batch) -> Rng:
    return Rng.scoring(7, batch.ids)


def test_every_method_has_one_of_the_three_capabilities(method: Method) -> None:
    assert isinstance(method, Reconstructor | AnomalyMapper | ScanScorer)


def test_shape_and_dtype_are_kept_and_values_are_finite(reconstructor: Method, batch: Batch) -> None:
    x_hat = reconstructor.reconstruct(batch.images, rng_of(batch), batch.body)
    assert x_hat.shape == batch.images.shape and x_hat.dtype == batch.images.dtype
    assert torch.isfinite(x_hat).all()
    assert not x_hat.requires_grad


def test_the_same_keys_give_the_same_bits(reconstructor: Method, batch: Batch) -> None:
    first, second = (reconstructor.reconstruct(batch.images, rng_of(batch)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_row_does_not_depend_on_order_subset_or_training_mode(reconstructor: Method, batch: Batch) -> None:
    whole = reconstructor.eval().reconstruct(batch.images, rng_of(batch))
    order = [2, 0, 3, 1]
    shuffled = reconstructor.reconstruct(batch.images[order], rng_of(batch).rows(order))
    assert_close(shuffled, whole[order], rtol=1e-4, atol=1e-5)
    reconstructor.train()
    for i in range(4):
        alone = reconstructor.reconstruct(batch.images[i : i + 1], Rng.scoring(7, batch.ids[i : i + 1]))
        assert_close(alone[0], whole[i], rtol=1e-4, atol=1e-5)
    assert reconstructor.training, "reconstruct must leave the mode as it was"


def test_other_neighbours_do_not_move_a_row(reconstructor: Method, batch: Batch) -> None:
    others = batch.images.clone()
    others[1:] = torch.rand_like(others[1:]) * 2 - 1
    here = reconstructor.reconstruct(batch.images, rng_of(batch))
    there = reconstructor.reconstruct(others, rng_of(batch))
    assert_close(there[0], here[0], rtol=1e-5, atol=1e-6)


def test_the_global_generator_is_neither_read_nor_moved(reconstructor: Method, batch: Batch) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = reconstructor.reconstruct(batch.images, rng_of(batch))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(reconstructor.reconstruct(batch.images, rng_of(batch)), first)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_a_constant_image_gives_finite_values(reconstructor: Method, value: float) -> None:
    x_hat = reconstructor.reconstruct(torch.full((2, 1, 32, 32), value), Rng([1, 2]))
    assert torch.isfinite(x_hat).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_pixels_are_refused_with_their_code(reconstructor: Method, batch: Batch, value: float) -> None:
    batch.images[1, 0, 3, 3] = value
    with pytest.raises(Rejected, match="1 of 4 images") as caught:
        reconstructor.reconstruct(batch.images, rng_of(batch))
    assert caught.value.code is RejectionCode.NON_FINITE


@pytest.mark.parametrize("shape", [(2, 1, 32, 64), (2, 3, 32, 32), (2, 1, 16, 16), (2, 1, 32, 32, 32)])
def test_another_shape_is_refused_with_the_shape_it_was_built_for(
    reconstructor: Method, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"\[B, 1, 32, 32\]"):
        reconstructor.reconstruct(torch.zeros(shape), Rng([1, 2]))


@pytest.mark.parametrize("size", [0, 1, 7, 30, 33, 36, 48])
def test_any_size_works_or_is_refused_with_sizes_that_work(
    config: MethodConfig, size: int, fitted: Callable[[Method], Method]
) -> None:
    try:
        method = build_method(config, size)
    except ConfigError as error:
        allowed = [int(word.strip(".")) for word in str(error).split("are ")[1].split(" and ")]
        assert len(allowed) == 2
        for good in allowed:
            assert build_method(config, good).image_size == good
        return
    if isinstance(method, Reconstructor):
        x_hat = fitted(method).reconstruct(torch.zeros(1, 1, size, size), Rng([1]))
        assert x_hat.shape == (1, 1, size, size)


@pytest.mark.parametrize(("channels", "spatial_dims"), [(0, 2), (1, 1), (1, 4)])
def test_impossible_channels_and_dimensions_are_refused(config: MethodConfig, channels: int, spatial_dims: int) -> None:
    if channels and spatial_dims in config.dimensions:
        pytest.skip("it reads signals too")
    with pytest.raises(ConfigError):
        build_method(config, 32, channels, spatial_dims)


def test_several_channels_are_taken(config: MethodConfig, fitted: Callable[[Method], Method]) -> None:
    method = build_method(config, 32, channels=3)
    if isinstance(method, Reconstructor):
        assert fitted(method).reconstruct(torch.zeros(1, 3, 32, 32), Rng([1])).shape == (1, 3, 32, 32)
