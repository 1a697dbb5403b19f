"""Finite scalar quantisation: the values of each channel, their numbering, and gradients as if nothing was rounded."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from pipeline.nn.scalar_quantise import ScalarQuantiser


@pytest.mark.parametrize(
    ("values", "levels"), [(3, [-1.0, 0.0, 1.0]), (5, [-1.0, -0.5, 0.0, 0.5, 1.0]), (4, [-1.0, -0.5, 0.0, 0.5])]
)
def test_a_channel_takes_each_of_its_values_and_no_other(values: int, levels: list[float]) -> None:
    z = torch.linspace(-20, 20, 4001).reshape(1, 1, -1, 1)
    assert ScalarQuantiser([values])(z).codes.unique().tolist() == levels


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(2, 7), min_size=1, max_size=4), st.integers(0, 2**31))
def test_equal_codes_have_equal_indices_and_different_ones_different(values: list[int], seed: int) -> None:
    quantise = ScalarQuantiser(values)
    z = 3 * torch.randn(2, len(values), 12, 12, generator=torch.Generator().manual_seed(seed))
    answer = quantise(z)
    codes, indices = answer.codes.movedim(1, -1).reshape(-1, len(values)), answer.indices.flatten()
    assert indices.min() >= 0 and indices.max() < prod(values)
    same_code = (codes[:, None] == codes[None]).all(dim=-1)
    assert torch.equal(same_code, indices[:, None] == indices[None])


def test_zero_is_coded_as_zero_whatever_the_number_of_values() -> None:
    assert ScalarQuantiser([2, 3, 4, 5, 8])(torch.zeros(1, 5, 1, 1)).codes.flatten().tolist() == [0.0] * 5


def test_gradients_pass_the_rounding() -> None:
    """Derivative of f(z) = reach tanh(z) / scale at odd L = 5: 2 (1 + 0.001) (1 - tanh^2 z) / 2."""
    z = torch.tensor([0.3, -1.2]).reshape(1, 1, 2, 1).requires_grad_()
    ScalarQuantiser([5])(z).codes.sum().backward()
    assert_close(z.grad, 1.001 * (1 - torch.tanh(z.detach()).square()))
