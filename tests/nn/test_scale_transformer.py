"""The transformer over scales: what a place sees, a probability by enumeration, and samples with and without memory."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.testing import assert_close

from pipeline.nn.draw_codes import draw_code
from pipeline.nn.quantise import CodebookConfig
from pipeline.nn.residual_quantise import ResidualQuantiser
from pipeline.nn.rng import Rng
from pipeline.nn.scale_transformer import ScaleTransformer, ScaleTransformerConfig

both = pytest.mark.parametrize("order", ["scale", "raster"])


class Prior:
    """A random transformer over the codes of a random codebook."""

    def __init__(self, order: str, entries: int = 2, grid: int = 2, dims: int = 2, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.codes = ResidualQuantiser(dims, grid, entries, 3, CodebookConfig()).eval()
        config = ScaleTransformerConfig(width=16, layers=2, heads=2, order=order)
        self.network = ScaleTransformer(entries, 3, self.codes.counts, config, 4).eval()
        with torch.no_grad():
            self.codes.quantiser.codebook.normal_()
            for parameter in self.network.parameters():  # DiT's blocks start as nothing
                parameter.normal_(0, 0.5 if parameter.ndim > 1 else 0.1)

    def logits(self, tokens: Tensor, c: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return self.network(self.codes.contexts(tokens), self.codes.entries_of(tokens), c)

    def log_p(self, tokens: Tensor, c: Tensor | None = None) -> Tensor:
        logits = self.logits(tokens, c).double().log_softmax(dim=-1)
        return logits.gather(2, tokens[..., None])[..., 0].sum(dim=1)

    def sample(self, u: Tensor, c: Tensor | None = None, nothing: Tensor | None = None, guidance: float = 0) -> Tensor:
        def choose(scale: int, at: slice, f_hat: Tensor, logits: Tensor) -> Tensor:
            return draw_code(logits, u[:, at])

        with torch.no_grad():
            return self.network.generate(self.codes, len(u), choose, c, nothing, guidance)


@both
@pytest.mark.parametrize(("grid", "dims"), [(4, 2), (2, 3)])
def test_a_place_sees_what_comes_before_it_and_nothing_else(order: str, grid: int, dims: int) -> None:
    prior = Prior(order, 3, grid, dims)
    counts = prior.codes.counts
    scale_of = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    turn = torch.arange(sum(counts)) if order == "raster" else scale_of
    tokens = torch.randint(3, (1, sum(counts)), generator=torch.Generator().manual_seed(4))
    before = prior.logits(tokens)
    for place in range(sum(counts)):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % 3
        moved = (prior.logits(other) - before).abs().amax(dim=(0, 2)) > 1e-5
        assert moved.tolist() == (turn > turn[place]).tolist(), place


@both
def test_the_likelihoods_of_all_codes_sum_to_one_whatever_the_condition(order: str) -> None:
    prior, tokens = Prior(order), torch.tensor(list(product(range(2), repeat=5)))
    given = [prior.log_p(tokens, c.expand(32, -1)) for c in Rng([0, 1]).normal(4)]
    for log_p in (*given, prior.log_p(tokens)):
        assert_close(log_p.exp().sum(), torch.ones((), dtype=torch.float64), rtol=1e-6, atol=1e-6)
        assert log_p.std() > 0.1
    assert (given[0] - given[1]).abs().max() > 0.01


@both
def test_samples_follow_the_enumerated_distribution(order: str) -> None:
    prior, tokens, n = Prior(order, seed=3), torch.tensor(list(product(range(2), repeat=5))), 4000
    drawn = prior.sample(Rng([5]).uniform(n, 5)[0])
    counts = torch.bincount((drawn * 2 ** torch.arange(4, -1, -1)).sum(dim=1), minlength=32)
    assert chisquare(counts.double(), n * prior.log_p(tokens).softmax(dim=0)).pvalue > 0.01


@both
def test_sampling_with_a_memory_is_sampling_from_the_whole_sequence(order: str) -> None:
    prior, u, c = Prior(order, 5, 4), Rng(range(6)).uniform(21), Rng(range(6)).normal(4)
    drawn = prior.sample(u, c)
    slow = torch.zeros_like(drawn)
    for _ in range(21):  # each pass gives the codes that follow right ones, at least one more
        slow = draw_code(prior.logits(slow, c), u)
    assert torch.equal(drawn, slow) and len(drawn.unique()) == 5


@both
def test_guidance_is_off_at_0_and_grows_with_the_scale(order: str) -> None:
    prior, u, c = Prior(order, 5, 4), Rng(range(8)).uniform(21), Rng(range(8)).normal(4)
    nothing = torch.zeros(8, 4)
    assert torch.equal(prior.sample(u, c, nothing, 0.0), prior.sample(u, c))
    guided = prior.sample(u, c, nothing, 3.0)
    assert torch.equal(guided[:, 0], prior.sample(u, c)[:, 0]) and not torch.equal(guided, prior.sample(u, c))
    slow = torch.zeros_like(guided)
    weight = torch.tensor([0.0, 1.5, 3.0]).repeat_interleave(torch.tensor([1, 4, 16]))[:, None]
    for _ in range(21):
        slow = draw_code((1 + weight) * prior.logits(slow, c) - weight * prior.logits(slow, nothing), u)
    assert torch.equal(guided, slow)


@both
def test_the_passes_are_one_per_scale_or_one_per_code(order: str) -> None:
    prior, passes = Prior(order, 3, 4), []
    prior.network.last.register_forward_hook(lambda module, inputs, output: passes.append(output.shape[1]))
    prior.sample(torch.rand(2, 21))
    assert passes == ([1, 4, 16] if order == "scale" else [1] * 21) and len(passes) == prior.network.turns
