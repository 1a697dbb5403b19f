"""Vector quantisation: nearest entry by brute force, stop-gradients and straight-through derivatives by hand."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from pipeline.nn.quantise import VectorQuantiser, perplexity


def quantiser(entries: list[list[float]]) -> VectorQuantiser:
    made = VectorQuantiser(len(entries), len(entries[0]))
    with torch.no_grad():
        made.codebook.copy_(torch.tensor(entries))
    return made


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 20), st.integers(1, 6), st.sampled_from([(3, 4), (2, 3, 2)]))
def test_each_vector_gets_its_nearest_entry(seed: int, entries: int, width: int, spatial: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    made = quantiser(torch.randn(entries, width, generator=generator).tolist())
    z_e = torch.randn(2, width, *spatial, generator=generator)
    answer = made(z_e)
    vectors = z_e.movedim(1, -1).reshape(-1, width)
    distance = (vectors[:, None] - made.codebook[None]).square().sum(-1)  # brute force
    chosen = answer.indices.flatten()
    assert_close(distance[torch.arange(len(chosen)), chosen], distance.min(dim=1).values, rtol=1e-4, atol=1e-5)
    assert_close(answer.codes.movedim(1, -1).reshape(-1, width), made.codebook[chosen], rtol=1e-5, atol=1e-6)


def test_losses_and_their_gradients_by_hand() -> None:
    # One vector z = (1, 2), nearest entry e = (0, 2): both losses are the mean of (1, 0)^2 = 1/2.
    # d codebook / d e = 2 (e - z) / 2 = (-1, 0); d commitment / d z = 2 (z - e) / 2 = (1, 0); nothing crosses over.
    made = quantiser([[0.0, 2.0], [9.0, 9.0]])
    z = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1).requires_grad_()
    answer = made(z)
    assert answer.codebook_loss.item() == answer.commitment_loss.item() == 0.5
    to_book = torch.autograd.grad(answer.codebook_loss, [made.codebook, z], retain_graph=True, allow_unused=True)
    assert to_book[0].tolist() == [[-1.0, 0.0], [0.0, 0.0]] and to_book[1] is None
    to_encoder = torch.autograd.grad(answer.commitment_loss, [made.codebook, z], allow_unused=True)
    assert to_encoder[0] is None and to_encoder[1].flatten().tolist() == [1.0, 0.0]


def test_later_gradients_reach_the_encoder_unchanged_and_not_the_codebook() -> None:
    made = quantiser([[0.0, 2.0], [9.0, 9.0]])
    z = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1).requires_grad_()
    codes = made(z).codes
    following = torch.tensor([3.0, -5.0]).reshape(1, 2, 1, 1)
    gradients = torch.autograd.grad((codes * following).sum(), [z, made.codebook], allow_unused=True)
    assert torch.equal(gradients[0], following) and gradients[1] is None


def test_the_codebook_is_placed_on_the_data() -> None:
    made = VectorQuantiser(4, 2)
    z_e = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0)) + 40
    made.place(z_e, torch.tensor([0.0, 0.3, 0.6, 0.99]))
    assert made.placed and (made.codebook - 40).abs().max() < 5


def test_perplexity_counts_the_entries_in_use() -> None:
    assert_close(perplexity(torch.tensor([3, 3, 3]), 8), torch.tensor(1.0))
    assert_close(perplexity(torch.tensor([0, 1, 2, 3]), 8), torch.tensor(4.0))
    assert_close(perplexity(torch.tensor([0, 0, 0, 1]), 2), torch.tensor(1.7547654))  # exp(-.75 ln .75 - .25 ln .25)
