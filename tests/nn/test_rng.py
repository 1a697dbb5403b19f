"""Row-wise randomness: independent of neighbours, stable, of the stated distributions, cheap."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.nn.rng import Rng, row_key

KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6, unique=True)


@settings(max_examples=40, deadline=None)
@given(KEYS, st.randoms(use_true_random=False), st.integers(1, 40))
def test_a_row_draws_the_same_in_any_company(keys: list[int], random: object, width: int) -> None:
    order = list(range(len(keys)))
    random.shuffle(order)
    whole, shuffled = Rng(keys), Rng([keys[i] for i in order])
    for draw in (lambda r: r.normal(1, width), lambda r: r.uniform(width), lambda r: r.integers(0, 9, width)):
        assert torch.equal(draw(shuffled), draw(whole)[order])


def test_a_training_image_draws_the_same_however_it_is_batched() -> None:
    whole = Rng.training(3, 100, 8).normal(5)
    assert torch.equal(Rng.training(3, 104, 4).normal(5), whole[4:])
    assert not torch.equal(Rng.training(4, 100, 8).normal(5), whole)


def test_a_scan_draws_by_seed_and_id() -> None:
    first = Rng.scoring(0, ["a", "b"]).normal(4)
    assert torch.equal(Rng.scoring(0, ["b"]).normal(4)[0], first[1])
    assert not torch.equal(Rng.scoring(1, ["a", "b"]).normal(4), first)
    assert not torch.equal(first[0], first[1])


def test_keys_are_pinned_across_versions_and_tell_types_apart() -> None:
    # blake2b-64 of the text "(0, 'a')", little endian; a change here would change every score of every stored model.
    assert row_key(0, "a") == 0x7D4303A78EC2FEF6
    assert row_key(1) != row_key("1")
    assert row_key(1, 2) != row_key(12)


def test_forks_are_fresh_streams_that_do_not_depend_on_earlier_draws() -> None:
    used, fresh = Rng([1, 2]), Rng([1, 2])
    used.normal(10)
    assert torch.equal(used.fork("x").normal(3), fresh.fork("x").normal(3))
    assert not torch.equal(fresh.fork("x").normal(3), fresh.fork("y").normal(3))
    assert torch.equal(used.rows([1]).normal(3)[0], Rng([2]).normal(3)[0])


def test_distributions_have_the_stated_moments() -> None:
    rng = Rng(range(2000))
    normal, uniform, integers = rng.normal(50), rng.uniform(50, low=-1.0, high=3.0), rng.integers(2, 5, 50)
    four_sigma = 4 / math.sqrt(100_000)
    assert abs(normal.mean()) < four_sigma and abs(normal.var() - 1) < four_sigma * math.sqrt(2)
    assert uniform.min() >= -1 and uniform.max() < 3
    assert abs(uniform.mean() - 1) < four_sigma * 4 / math.sqrt(12)
    shares = torch.bincount(integers.flatten(), minlength=6) / 100_000
    assert shares[[0, 1, 5]].sum() == 0
    torch.testing.assert_close(shares[2:5], torch.full((3,), 1 / 3), rtol=0, atol=4 * math.sqrt(2 / 9 / 100_000))


def test_first_draws_of_neighbouring_images_are_not_correlated() -> None:
    draws = Rng.training(0, 0, 4001).normal(1).flatten()
    correlation = torch.corrcoef(torch.stack([draws[:-1], draws[1:]]))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(4000)


def test_shapes_and_types() -> None:
    rng = Rng([5, 6, 7])
    assert len(rng) == 3
    assert rng.normal().shape == (3,) and rng.normal(2, 1).dtype == torch.float32
    assert rng.integers(0, 4).shape == (3,) and rng.integers(0, 4).dtype == torch.int64
    with pytest.raises(IndexError):
        rng.rows([3])
