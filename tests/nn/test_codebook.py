"""A codebook kept alive: appendix A.1 by hand and against k-means, and dead entries put back on the data."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch.testing import assert_close

from pipeline.nn.quantise import CodebookConfig, VectorQuantiser
from pipeline.nn.rng import Rng

FOUR = torch.tensor([[-3.0, -3.0], [-3.0, 3.0], [3.0, -3.0], [3.0, 3.0]])


def quantiser(entries: torch.Tensor, **config: object) -> VectorQuantiser:
    made = VectorQuantiser(*entries.shape, CodebookConfig(**config))
    with torch.no_grad():
        made.codebook.copy_(entries)
        made.placed.fill_(True)
        if made.learns_by_ema:
            made.sums.copy_(entries)
    return made


def clusters(seed: int, rows: int = 8) -> torch.Tensor:
    """Vectors around four centres, [rows, 2, 10, 10]."""
    generator = torch.Generator().manual_seed(seed)
    chosen = FOUR[torch.randint(4, (rows, 10, 10), generator=generator)]
    return (chosen + 0.3 * torch.randn(chosen.shape, generator=generator)).movedim(-1, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 0.99))
def test_the_averages_are_those_of_appendix_a1(seed: int, gamma: float) -> None:
    # N_i <- gamma N_i + (1 - gamma) n_i, m_i <- gamma m_i + (1 - gamma) sum z, e_i = m_i / N_i, one entry at a time.
    generator = torch.Generator().manual_seed(seed)
    made = quantiser(torch.randn(5, 3, generator=generator), learn="ema", decay=gamma)
    fair = 2 * 16 / 5  # N starts at a fair share
    entries, n, m = made.codebook.clone(), torch.full((5,), fair), made.codebook * fair
    for step in range(3):
        z_e = torch.randn(2, 3, 4, 4, generator=generator)
        vectors = z_e.movedim(1, -1).reshape(-1, 3)
        nearest = torch.cdist(vectors, entries).argmin(dim=1)
        for i in range(5):
            mine = vectors[nearest == i]
            n[i], m[i] = gamma * n[i] + (1 - gamma) * len(mine), gamma * m[i] + (1 - gamma) * mine.sum(dim=0)
            entries[i] = m[i] / n[i] if n[i] > 1e-9 else entries[i]
        made.train()(z_e, Rng([step, step + 1]))
        made.update()
        assert_close(made.codebook, entries, rtol=1e-3, atol=1e-4)


def test_moving_averages_end_at_the_centres_that_k_means_finds() -> None:
    made = quantiser(0.5 * FOUR, learn="ema", decay=0.9)
    for step in range(100):
        made.train()(clusters(step), Rng(range(8)))
        made.update()
    every = torch.cat([clusters(step) for step in range(100)]).movedim(1, -1).reshape(-1, 2)
    centres = KMeans(4, init=FOUR.numpy(), n_init=1).fit(every.numpy()).cluster_centers_
    assert_close(made.codebook, torch.from_numpy(centres).float(), atol=0.05, rtol=0)


def test_an_averaged_codebook_has_no_gradient_and_the_encoder_its_own() -> None:
    made = quantiser(FOUR, learn="ema")
    assert list(made.parameters()) == []
    z = clusters(0).requires_grad_()
    answer = made(z)
    (gradient,) = torch.autograd.grad(answer.commitment_loss + answer.codes.sum(), z)
    assert gradient.abs().max() > 0
    assert not answer.codebook_loss.requires_grad


@pytest.mark.parametrize("learn", ["gradient", "ema"])
def test_a_dead_entry_comes_back_to_the_data_and_a_living_one_stays(learn: str) -> None:
    far = torch.cat([FOUR, torch.full((1, 2), 99.0)])
    made = quantiser(far, learn=learn, decay=0.5, revive_below=0.1)
    for step in range(3):  # 1/2, 1/4, 1/8 of a fair share: alive
        made.train()(clusters(step), Rng(range(8)))
        made.update()
    assert made.codebook[4].tolist() == pytest.approx([99.0, 99.0])
    made(clusters(3), Rng(range(8)))
    made.update()  # 1/16 < 0.1
    assert torch.cdist(made.codebook[4:].detach(), FOUR).min() < 1.5
    assert made.usage[4] == 1.0
    assert_close(made.codebook[:4].detach(), FOUR, atol=0.2, rtol=0)
    spared = quantiser(far, learn=learn, decay=0.5)
    for step in range(9):
        spared.train()(clusters(step), Rng(range(8)))
        spared.update()
    assert spared.codebook[4].tolist() == pytest.approx([99.0, 99.0])


def test_an_entry_unused_for_very_long_stays_finite() -> None:
    made = quantiser(torch.cat([FOUR, torch.full((1, 2), 99.0)]), learn="ema", decay=0.1)
    for step in range(80):
        made.train()(clusters(step), Rng(range(8)))
        made.update()
    assert torch.isfinite(made.codebook).all()


def test_revived_entries_are_a_function_of_the_keys() -> None:
    def revived(keys: range) -> torch.Tensor:
        made = quantiser(torch.full((3, 2), 99.0), learn="ema", decay=0.0, revive_below=0.5)
        made.train()(clusters(0), Rng(keys))
        made.update()
        return made.codebook

    assert torch.equal(revived(range(8)), revived(range(8)))
    assert not torch.equal(revived(range(8)), revived(range(8, 16)))


def test_nothing_is_noted_without_training_or_without_randomness() -> None:
    made = quantiser(FOUR, learn="ema", revive_below=0.5)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.eval()(clusters(0), Rng(range(8)))
    made.update()
    made.train()(clusters(0))
    made.update()
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_a_gradient_codebook_has_the_state_that_it_always_had() -> None:
    assert set(VectorQuantiser(4, 2).state_dict()) == {"codebook", "placed"}
    assert set(quantiser(FOUR, learn="ema").state_dict()) == {"codebook", "sums", "usage", "placed"}
