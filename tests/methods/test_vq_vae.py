"""`vq_vae`: eq. 3 with each term reaching its own weights only; the code is all that the decoder sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.methods.vq_vae import VectorQuantisedAutoencoder, VqVaeConfig
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, fit
from pipeline.types import Batch


@pytest.fixture
def method() -> VectorQuantisedAutoencoder:
    return VqVaeConfig(widths=(4, 8), entries=8, code_width=4, beta=0.5).build(16)


@pytest.fixture
def batch() -> Batch:
    x = Rng([1, 2]).normal(1, 16, 16).clamp(-1, 1)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), ("a", "b"))


def reached(method: VectorQuantisedAutoencoder, term: Tensor) -> set[str]:
    names, parameters = zip(*method.named_parameters(), strict=True)
    gradients = torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True)
    pairs = zip(names, gradients, strict=True)
    return {name.split(".")[0] for name, gradient in pairs if gradient is not None and gradient.abs().max() > 0}


def test_each_term_moves_its_own_part(method: VectorQuantisedAutoencoder, batch: Batch) -> None:
    terms = method.loss(batch, "train", Rng([1, 2]))
    assert reached(method, terms["codebook"]) == {"quantiser"}
    assert reached(method, terms["commitment"]) == {"encoder"}
    assert reached(method, terms["reconstruction"]) == {"encoder", "decoder"}
    assert reached(method, terms["total"]) == {"encoder", "quantiser", "decoder"}


def test_the_total_is_eq_3(method: VectorQuantisedAutoencoder, batch: Batch) -> None:
    terms = method.loss(batch, "train", Rng([1, 2]))
    assert_close(terms["total"], terms["reconstruction"] + terms["codebook"] + 0.5 * terms["commitment"])
    assert 1 <= terms["perplexity"] <= 8


def test_the_codebook_is_placed_once_and_in_training_only(method: VectorQuantisedAutoencoder, batch: Batch) -> None:
    method.eval().loss(batch, "train", Rng([1, 2]))
    assert not method.quantiser.placed
    method.train().loss(batch, "train", Rng([1, 2]))
    placed = method.quantiser.codebook.clone()
    method.loss(batch, "train", Rng([3, 4]))
    assert method.quantiser.placed and torch.equal(method.quantiser.codebook, placed)


def test_the_decoder_sees_codes_only(method: VectorQuantisedAutoencoder, batch: Batch) -> None:
    method.loss(batch, "train", Rng([1, 2]))
    method.eval()
    _, quantised = method(batch.images)
    from_indices = method.quantiser.codebook[quantised.indices].movedim(-1, 1)
    assert_close(method.reconstruct(batch.images, Rng([1, 2])), method.decoder(from_indices).detach())


@pytest.mark.parametrize("rows", [1, 3, 8, 20])
def test_the_codebook_can_be_placed_from_any_batch(rows: int) -> None:
    method = VqVaeConfig(widths=(4, 8), entries=8, code_width=4).build(16)
    x = Rng(range(rows)).normal(1, 16, 16)
    terms = method.loss(Batch(x, x > 9, tuple(map(str, range(rows)))), "train", Rng(range(rows)))
    assert torch.isfinite(terms["total"]) and method.quantiser.placed


def test_moving_averages_leave_no_codebook_term(batch: Batch) -> None:
    method = VqVaeConfig(widths=(4, 8), entries=8, code_width=4, beta=0.5, codebook={"learn": "ema"}).build(16)
    terms = method.loss(batch, "train", Rng([1, 2]))
    assert "codebook" not in terms
    assert_close(terms["total"], terms["reconstruction"] + 0.5 * terms["commitment"])
    assert reached(method, terms["total"]) == {"encoder", "decoder"}
    before = method.quantiser.codebook.clone()
    method.after_step("train")
    assert not torch.equal(method.quantiser.codebook, before)


class Noise:
    """Images that no two entries describe alike."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": Rng([i]).normal(1, 16, 16)[0].clamp(-1, 1), "body": torch.ones(1, 16, 16) > 0, "id": str(i)}


@pytest.mark.parametrize("learn", ["gradient", "ema"])
def test_a_resumed_codebook_is_bitwise_the_same(tmp_path: Path, learn: str) -> None:
    def trained(folder: Path, *budgets: int) -> dict[str, Tensor]:
        for images in budgets:
            book = {"learn": learn, "decay": 0.5, "revive_below": 0.5}
            method = VqVaeConfig(widths=(4, 8), entries=16, code_width=4, codebook=book).build(16)
            config = TrainingConfig(images=images, batch_size=4, validate_every_images=8, patience=None)
            result = fit(method, Noise(), None, config, folder)
        return result.method.state_dict()

    whole, parts = trained(tmp_path / "whole", 48), trained(tmp_path / "parts", 16, 48)
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_revival_keeps_more_of_the_codebook_in_use(tmp_path: Path) -> None:
    def use(revive_below: float) -> int:
        book = {"learn": "ema", "decay": 0.9, "revive_below": revive_below}
        method = VqVaeConfig(widths=(4, 8), entries=32, code_width=4, codebook=book).build(16)
        config = TrainingConfig(images=12 * 60, batch_size=12, patience=None)
        trained = fit(method, Noise(), None, config, tmp_path / str(revive_below)).method
        x = torch.stack([Noise()[i]["image"] for i in range(12)])
        return len(trained(x)[1].indices.unique())

    assert use(0.1) > use(0.0)
