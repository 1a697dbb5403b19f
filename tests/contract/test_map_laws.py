"""Laws of `anomaly_map` and `score` over every registered method that answers so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ConfigError, Rejected, RejectionCode
from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.capabilities import AnomalyMapper, ScanScorer
from pipeline.methods.method_registry import build_method
from pipeline.nn.rng import Rng
from pipeline.types import Batch


@pytest.fixture
def mapper(method: Method) -> Method:
    """Skip methods that reconstruct."""
    if not isinstance(method, AnomalyMapper | ScanScorer):
        pytest.skip("has neither map nor score of its own")
    return method


def answer(method: Method, x: Tensor, ids: tuple[str, ...]) -> Tensor:
    rng = Rng.scoring(7, ids)
    return method.anomaly_map(x, rng) if isinstance(method, AnomalyMapper) else method.score(x, rng)


def test_shape_is_right_and_values_are_finite(mapper: Method, batch: Batch) -> None:
    values = answer(mapper, batch.images, batch.ids)
    shape = (4, 1, 32, 32) if isinstance(mapper, AnomalyMapper) else (4,)
    assert values.shape == shape and torch.isfinite(values).all() and not values.requires_grad


def test_a_row_does_not_depend_on_order_subset_or_training_mode(mapper: Method, batch: Batch) -> None:
    whole = answer(mapper.eval(), batch.images, batch.ids)
    order = [2, 0, 3, 1]
    shuffled = answer(mapper, batch.images[order], tuple(batch.ids[i] for i in order))
    assert_close(shuffled, whole[order], rtol=1e-4, atol=1e-5)
    mapper.train()
    for i in range(4):
        assert_close(answer(mapper, batch.images[i : i + 1], batch.ids[i : i + 1])[0], whole[i], rtol=1e-4, atol=1e-5)
    assert mapper.training, "answering must leave the mode as it was"


def test_the_same_keys_give_the_same_bits_and_no_global_generator_is_used(mapper: Method, batch: Batch) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = answer(mapper, batch.images, batch.ids)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(answer(mapper, batch.images, batch.ids), first)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_a_constant_image_gives_finite_values(mapper: Method, value: float) -> None:
    assert torch.isfinite(answer(mapper, torch.full((2, 1, 32, 32), value), ("a", "b"))).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_pixels_are_refused_with_their_code(mapper: Method, batch: Batch, value: float) -> None:
    batch.images[1, 0, 3, 3] = value
    with pytest.raises(Rejected, match="1 of 4 images") as caught:
        answer(mapper, batch.images, batch.ids)
    assert caught.value.code is RejectionCode.NON_FINITE


@pytest.mark.parametrize("shape", [(2, 1, 32, 64), (2, 3, 32, 32), (2, 1, 16, 16), (2, 1, 32, 32, 32)])
def test_another_shape_is_refused_with_the_shape_it_was_built_for(mapper: Method, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"\[B, 1, 32, 32\]"):
        answer(mapper, torch.zeros(shape), ("a", "b"))


def test_several_channels_are_taken(mapper: Method, config: MethodConfig, fitted: Callable[[Method], Method]) -> None:
    method = fitted(build_method(config, 32, channels=3))
    assert torch.isfinite(answer(method, torch.zeros(1, 3, 32, 32), ("a",))).all()
