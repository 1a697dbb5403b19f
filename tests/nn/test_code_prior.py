"""The priors over codes: causal, a probability by enumeration, and sampled as they say."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch.testing import assert_close

from pipeline.nn.code_histogram import CodeHistogram, smoothed
from pipeline.nn.code_prior import CodePrior
from pipeline.nn.code_transformer import CodeTransformer, CodeTransformerConfig
from pipeline.nn.pixel_snail import CausalConv, PixelSnail, PixelSnailConfig
from pipeline.nn.rng import Rng

SNAIL, SENTENCE, COUNTS = "pixel_snail", "transformer", "histogram"
both = pytest.mark.parametrize("kind", [SNAIL, SENTENCE])
all_three = pytest.mark.parametrize("kind", [SNAIL, SENTENCE, COUNTS])


def prior(
    entries: int, grid: tuple[int, ...], kind: str = SNAIL, coarse: int | None = None, seed: int = 0
) -> CodePrior:
    torch.manual_seed(seed)
    if kind == COUNTS:
        histogram = CodeHistogram(entries, grid)
        histogram.observe(torch.randint(entries, (5, *grid)))
        return histogram.eval()
    if kind == SENTENCE:
        return CodeTransformer(entries, grid, CodeTransformerConfig(width=8, layers=2, heads=2)).eval()
    return PixelSnail(entries, grid, PixelSnailConfig(width=8, blocks=2, heads=2), coarse).eval()


def all_codes(entries: int, grid: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(list(product(range(entries), repeat=math.prod(grid)))).reshape(-1, *grid)


@both
@pytest.mark.parametrize("grid", [(4, 5), (2, 3, 3)])
def test_each_place_sees_all_that_comes_before_and_nothing_else(grid: tuple[int, ...], kind: str) -> None:
    made, count = prior(3, grid, kind), math.prod(grid)
    codes = torch.randint(3, (1, *grid), generator=torch.Generator().manual_seed(4))
    before = made(codes).flatten(2)
    for place in range(count):
        other = codes.flatten(1).clone()
        other[0, place] = (other[0, place] + 1) % 3
        moved = (made(other.reshape(codes.shape)).flatten(2) - before).abs().amax(dim=(0, 1)) > 0
        assert moved.tolist() == [later > place for later in range(count)], place


@pytest.mark.parametrize("here", [False, True])
def test_a_causal_convolution_sees_its_half(here: bool) -> None:
    made = CausalConv(2, 1, 1, 5, here)
    x = torch.zeros(1, 1, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(made(x)[0, 0, 4, 4], x)
    seen = {(int(i), int(j)) for i, j in gradient[0, 0].nonzero()}
    before = {(i, j) for i in range(2, 7) for j in range(2, 7) if (i, j) < (4, 4)}
    assert seen == before | ({(4, 4)} if here else set())


@all_three
@pytest.mark.parametrize(("entries", "grid"), [(2, (2, 3)), (3, (2, 2)), (2, (2, 2, 1))])
def test_the_likelihoods_of_all_arrangements_sum_to_one(entries: int, grid: tuple[int, ...], kind: str) -> None:
    made, codes = prior(entries, grid, kind), all_codes(entries, grid)
    nll = made.nll(codes).flatten(1).sum(dim=1)
    assert_close(nll.neg().exp().sum(), torch.tensor(1.0), rtol=1e-5, atol=1e-5)
    assert nll.std() > 0.01  # and it is not a uniform distribution


def test_they_sum_to_one_whatever_the_condition_and_it_matters() -> None:
    made, codes = prior(2, (2, 2), coarse=3), all_codes(2, (2, 2))
    nll = [made.nll(codes, torch.full((16, 1, 1), c)).flatten(1).sum(dim=1) for c in range(3)]
    for each in nll:
        assert_close(each.neg().exp().sum(), torch.tensor(1.0), rtol=1e-5, atol=1e-5)
    assert (nll[0] - nll[1]).abs().max() > 1e-3


def test_two_levels_are_one_distribution() -> None:
    # p(top) p(bottom | top) over all pairs, as a hierarchical codec writes an image.
    top, bottom = prior(2, (1, 1)), prior(2, (2, 2), coarse=2)
    codes, pairs = all_codes(2, (2, 2)), []
    for number in range(2):
        coarse = torch.full((16, 1, 1), number)
        pairs.append(top.nll(coarse).flatten(1).sum(dim=1) + bottom.nll(codes, coarse).flatten(1).sum(dim=1))
    assert_close(torch.cat(pairs).neg().exp().sum(), torch.tensor(1.0), rtol=1e-5, atol=1e-5)


@all_three
@pytest.mark.parametrize("grid", [(3, 4), (2, 2, 3)])
def test_one_position_alone_has_the_logits_that_it_has_among_all(grid: tuple[int, ...], kind: str) -> None:
    made, count = prior(5, grid, kind, None if kind != SNAIL else 4), math.prod(grid)
    codes = torch.randint(5, (2, *grid), generator=torch.Generator().manual_seed(1))
    coarse = torch.tensor([1, 3]).reshape(2, *[1] * len(grid)) if kind == SNAIL else None
    whole = made(codes, coarse).flatten(2)
    for place in range(count):
        later = codes.flatten(1).clone()
        later[:, place:] = 0
        assert_close(made.logits_at(later.reshape(codes.shape), place, coarse), whole[..., place], rtol=1e-4, atol=1e-5)


def test_temperature_and_top_k_change_the_distribution_as_they_say() -> None:
    # A histogram whose one place has p = (0.6, 0.3, 0.1), as far as smoothing allows.
    made, n = CodeHistogram(3, (1,)), 4000
    made.counts.copy_(torch.tensor([[6e5, 3e5, 1e5]]))

    def shares(**options: float) -> list[float]:
        drawn = made.sample(Rng(range(n)), **options).flatten()
        return (torch.bincount(drawn, minlength=3) / n).tolist()

    four_errors = 4 * 0.5 / n**0.5
    assert shares() == pytest.approx([0.6, 0.3, 0.1], abs=four_errors)
    squares = [0.36 / 0.46, 0.09 / 0.46, 0.01 / 0.46]
    assert shares(temperature=0.5) == pytest.approx(squares, abs=four_errors)  # p^2, normalised
    assert shares(top_k=2) == pytest.approx([2 / 3, 1 / 3, 0.0], abs=four_errors)
    assert shares(top_k=2)[2] == 0.0 and shares(top_k=1) == [1.0, 0.0, 0.0]
    assert shares(temperature=1e-6) == [1.0, 0.0, 0.0]


def test_the_histogram_falls_back_on_the_usage_of_all_positions() -> None:
    # Two positions, 2 entries: seen 4 times entry 0 at the first, and never anything at the second.
    counts = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    assert_close(smoothed(counts, 2.0), torch.tensor([[(4 + 2 * 5 / 6) / 6, 2 / 6 / 6], [5 / 6, 1 / 6]]))


@both
def test_samples_follow_the_enumerated_distribution(kind: str) -> None:
    made, codes, n = prior(2, (2, 2), kind, seed=3), all_codes(2, (2, 2)), 4000
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)  # far from uniform
    expected = made.nll(codes).flatten(1).sum(dim=1).neg().exp().double()
    drawn = made.sample(Rng(range(n))).flatten(1)
    number = (drawn * torch.tensor([8, 4, 2, 1])).sum(dim=1)
    observed = torch.bincount(number, minlength=16)
    expected_counts = (expected / expected.sum() * n).detach().numpy()
    large = expected_counts > 5
    pooled = [*observed.numpy()[large], observed.numpy()[~large].sum()]
    assert chisquare(pooled, [*expected_counts[large], expected_counts[~large].sum() + 1e-9]).pvalue > 1e-4
    assert expected.max() / expected.min() > 3


@both
def test_only_requested_codes_are_drawn_and_each_row_by_its_own_key(kind: str) -> None:
    made = prior(5, (3, 3), kind)
    codes = torch.randint(5, (4, 3, 3), generator=torch.Generator().manual_seed(1))
    where = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(2)) < 0.5
    where[3] = False
    drawn = made.resample(codes, where, Rng([1, 2, 3, 4]))
    assert torch.equal(drawn[~where], codes[~where]) and not torch.equal(drawn, codes)
    assert torch.equal(made.resample(codes[1:2], where[1:2], Rng([2])), drawn[1:2])
    assert not torch.equal(made.sample(Rng([1])), made.sample(Rng([2])))


@both
def test_it_learns_the_rule_of_its_codes(kind: str) -> None:
    # Each row of the grid repeats one random code: the first place costs log 3, the others nothing.
    made = prior(3, (3, 4), kind).train()
    optimiser = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(150):
        codes = torch.randint(3, (32, 3, 1)).expand(32, 3, 4)
        optimiser.zero_grad()
        made.nll(codes).mean().backward()
        optimiser.step()
    nll = made.nll(torch.randint(3, (300, 3, 1)).expand(300, 3, 4)).mean(dim=(0, 1))
    assert nll[0].item() == pytest.approx(math.log(3), abs=0.15)
    assert nll[1:].max() < 0.1
    broken = torch.tensor([[0, 0, 1, 0]]).expand(1, 3, 4)
    assert made.nll(broken)[0, :, 2].min() > 2
