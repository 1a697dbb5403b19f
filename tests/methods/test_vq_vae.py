"""`vq_vae`: eq. 3 with each term reaching its own weights only; the code is all that the decoder sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ConfigError
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


def test_signals_on_a_square_are_read_as_rows_by_a_network_with_one_axis() -> None:
    config = VqVaeConfig(widths=(4, 8), entries=8, code_width=4, signals=4)
    square, rows = config.build(16), config.model_copy(update={"signals": 0}).build(64, 4, 1)
    rows.load_state_dict(square.state_dict())
    x = Rng([1, 2]).normal(1, 16, 16)
    expected = rows.reconstruct(x.reshape(2, 4, 64), Rng([1, 2]))
    assert_close(square.reconstruct(x, Rng([1, 2])), expected.reshape(2, 1, 16, 16))
    assert square.to_tokens(x).shape == (2, 16)
    assert_close(square.from_tokens(square.to_tokens(x)), expected.reshape(2, 1, 16, 16))


@pytest.mark.parametrize(("signals", "size"), [(3, 16), (64, 16)])
def test_signals_that_do_not_fill_the_square_are_refused(signals: int, size: int) -> None:
    with pytest.raises(ConfigError):
        VqVaeConfig(widths=(4, 8), signals=signals).build(size)


def test_signals_cannot_be_mirrored() -> None:
    with pytest.raises(ValueError, match="signal"):
        VqVaeConfig(signals=4, mirrored=True)


def test_style_is_what_codes_do_not_say() -> None:
    method = VqVaeConfig(widths=(4, 8), entries=8, code_width=4, style=True).build(64, 2, 1)
    x, like = Rng([1, 2]).normal(2, 64), Rng([3, 4]).normal(2, 64)
    assert_close(method.restyle(x, x), method.reconstruct(x, Rng([1, 2])))
    z = method.to_code(x)
    assert_close(method._content(2.0 * z + 3.0), method._content(z), atol=1e-2, rtol=0)  # gain and offset are style
    # The decoder's input moves by the same vector at every time, whatever the codes are.
    codes, other = method.quantiser(method._content(z)).codes, method.to_code(like)
    moved = method._styled(codes, other, method.quantiser(method._content(other)).codes) - codes
    assert moved.std(dim=2).max() < 1e-5
    assert not torch.allclose(method.restyle(x, like), method.restyle(x, x))
