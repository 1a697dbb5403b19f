"""`conditional_vae`: eq. 4 by hand, normal given the stated condition, and no guess where none is stated."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from pipeline.errors import ConfigError, Rejected
from pipeline.methods.conditional_vae import ConditionalVaeConfig, ConditionalVariationalAutoencoder
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

ABOUT = (
    {"modality": "MR", "body_part": "HEAD", "sex": "F", "age_band": "40-59", "relative_position": 0.25},
    {"modality": "MR", "sex": "M"},
    {},
)


def build(**values: Any) -> ConditionalVariationalAutoencoder:
    return ConditionalVaeConfig(**{"widths": (4, 8), "latent": 3} | values).build(16)


def batch_of(x: torch.Tensor, about: tuple = ()) -> Batch:
    return Batch(x, torch.ones_like(x, dtype=torch.bool), tuple(map(str, range(len(x)))), about)


def test_the_loss_is_eq_4_with_one_reparametrised_sample() -> None:
    method = build(beta=3.0, conditions={"drop": 0.0, "drop_all": 0.0})
    x = Rng([1, 2, 3]).normal(1, 16, 16)
    method.loss(batch_of(x, ABOUT), "train", Rng([5, 6, 7]))  # in training mode: the words are seen
    terms = method.eval().loss(batch_of(x, ABOUT), "train", Rng([5, 6, 7]))
    c = method.conditions(ABOUT, 3)
    mu, log_variance = method.encode(x, c)
    q = Normal(mu, (0.5 * log_variance).exp())
    p = Normal(method.decode(q.loc + q.scale * Rng([5, 6, 7]).normal(3), c), 0.1)
    assert_close(terms["reconstruction"], -p.log_prob(x).flatten(1).sum(dim=1).mean())
    assert_close(terms["kl"], kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1).mean())
    assert_close(terms["total"], terms["reconstruction"] + 3.0 * terms["kl"])


def test_encoder_and_decoder_both_receive_the_condition() -> None:
    method = build().eval()
    x, z, (one, other) = Rng([1, 1]).normal(1, 16, 16), torch.zeros(2, 3), Rng([2, 3]).normal(2, 16).unbind(dim=1)
    for answer in (lambda c: method.encode(x, c)[0], lambda c: method.encode(x, c)[1], lambda c: method.decode(z, c)):
        assert (answer(one) - answer(other)).abs().max() > 1e-3


class Shades:
    """Images of one shade, which depends on the modality alone."""

    shades = ("CT", -0.6), ("MR", 0.2), ("US", 0.6)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> dict[str, Any]:
        modality, shade = self.shades[i]
        body = torch.ones(1, 16, 16, dtype=torch.bool)
        return {"image": torch.full((1, 16, 16), shade), "body": body, "id": modality, "about": {"modality": modality}}


def test_normal_is_judged_by_the_stated_condition() -> None:
    # A KL weight that empties the code leaves E[x | c]: each modality's own shade, and their mean where it is unknown.
    method = build(beta=1e4, conditions={"drop": 0.0, "drop_all": 0.25}, lr=1e-2)
    state = TrainState(method, TrainingConfig(images=10**6, batch_size=12, schedule="cosine", ema_decay=0.95))
    list(train(state, Shades(), 12 * 150))
    trained = state.ema
    any_image = torch.full((1, 1, 16, 16), 0.3)
    for modality, shade in Shades.shades:
        x_hat = trained.reconstruct(any_image, Rng([1]), about=({"modality": modality},))
        assert x_hat.mean().item() == pytest.approx(shade, abs=0.1), modality
        drawn = trained.sample(Rng(range(4)), about=({"modality": modality},) * 4)
        assert (drawn.mean(dim=(1, 2, 3)) - shade).abs().max() < 0.15, modality
    unknown = trained.reconstruct(any_image, Rng([1]), about=({},))
    assert unknown.mean().item() == pytest.approx(0.2 / 3, abs=0.15)
    assert_close(trained.reconstruct(any_image, Rng([1])), unknown)
    untrained = trained.reconstruct(any_image, Rng([1]), about=({"modality": "PT"},))
    assert_close(untrained, unknown)  # no training image was a PET: it says nothing


def test_a_row_receives_its_own_condition_only() -> None:
    method = build()
    x = Rng([1, 2, 3]).normal(1, 16, 16)
    method.loss(batch_of(x, ABOUT), "train", Rng([5, 6, 7]))
    whole = method.reconstruct(x, Rng([1, 2, 3]), about=ABOUT)
    turned = method.reconstruct(x.flip(0), Rng([3, 2, 1]), about=ABOUT[::-1])
    assert_close(turned.flip(0), whole, rtol=1e-4, atol=1e-5)
    assert_close(method.reconstruct(x[1:2], Rng([2]), about=ABOUT[1:2]), whole[1:2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(method.reconstruct(x, Rng([1, 2, 3])), whole)


def test_as_many_rows_must_be_told_of_as_there_are() -> None:
    with pytest.raises(ConfigError, match=r"\b3\b.*attributes.*\b2\b"):
        build().reconstruct(torch.zeros(3, 1, 16, 16), Rng([1, 2, 3]), about=ABOUT[:2])
    with pytest.raises(ConfigError, match=r"\b3\b.*attributes.*\b2\b"):
        build().sample(Rng([1, 2, 3]), about=ABOUT[:2])


def test_bad_pixels_are_refused_whatever_is_known_of_them() -> None:
    with pytest.raises(Rejected, match="1 of 1"):
        build().reconstruct(torch.full((1, 1, 16, 16), math.nan), Rng([1]), about=ABOUT[:1])
