"""`multiscale_vq`: what moves what, its tokens in both orders, and codes in use on every scale after training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods.multiscale_vq import MultiscaleTokeniser, MultiscaleVqConfig
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

TINY = {"widths": (8, 16), "entries": 16, "code_width": 4}
FEATURES = {"backbone": {"kind": "random", "depths": (1, 2)}}


def build(**values: Any) -> MultiscaleTokeniser:
    return MultiscaleVqConfig(**TINY | {"perceptual_weight": 0.0} | values).build(32)


def test_the_loss_is_the_sum_of_its_terms(batch: Batch) -> None:
    method = build(perceptual_weight=0.7, perceptual=FEATURES, beta=0.3).train()
    terms = method.loss(batch, "train", Rng(range(16)))
    expected = terms["reconstruction"] + terms["codebook"] + 0.3 * terms["commitment"] + 0.7 * terms["perceptual"]
    assert_close(terms["total"], expected)
    assert_close(terms["reconstruction"], (method(batch.images)[0] - batch.images).square().mean())
    assert {"perplexity_1", "perplexity_2", "perplexity_4", "perplexity_8"} <= set(terms)


def test_validation_judges_the_image_whatever_the_spread_of_the_features(batch: Batch) -> None:
    method = build(perceptual_weight=0.7, perceptual=FEATURES).eval()
    terms = method.validation(batch, "train", Rng(range(16)))
    assert_close(terms["total"], terms["reconstruction"] + 0.7 * terms["perceptual"])
    assert method.loss(batch, "train", Rng(range(16)))["total"] > terms["total"]


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("reconstruction", {"encoder", "decoder"}),
        ("codebook", {"quantiser"}),
        ("commitment", {"encoder"}),
    ],
)
def test_each_term_moves_its_own_side(batch: Batch, term: str, expected: set[str]) -> None:
    method = build().train()
    value = method.loss(batch, "train", Rng(range(16)))[term]
    named = [(name.split(".")[0], p) for name, p in method.named_parameters()]
    gradients = torch.autograd.grad(value, [p for _, p in named], allow_unused=True)
    assert {name for (name, _), g in zip(named, gradients, strict=True) if g is not None and g.any()} == expected


def test_tokens_are_coarsest_first_levels_finest_first_and_both_decode(batch: Batch) -> None:
    method = build()
    tokens, levels = method.to_tokens(batch.images), method.to_levels(batch.images)
    assert tokens.shape == (16, 85) and [level.shape[-1] for level in levels] == [8, 4, 2, 1]
    assert torch.equal(tokens[:, :1], levels[-1].flatten(1)) and torch.equal(tokens[:, -64:], levels[0].flatten(1))
    x_hat = method.reconstruct(batch.images, Rng(range(16)))
    assert_close(method.from_tokens(tokens), x_hat)
    assert_close(method.from_code(method.to_code(batch.images)), x_hat)


def test_after_training_every_scale_uses_its_codes_and_the_image_is_given_back(discs: Any) -> None:
    method = build(lr=3e-3)
    state = TrainState(method, TrainingConfig(images=32 * 64, batch_size=32, ema_decay=0.9))
    records = list(train(state, discs, 32 * 64))
    used = {edge: float(records[-1].terms[f"perplexity_{edge}"]) for edge in (1, 2, 4, 8)}
    assert min(used.values()) > 2.5, used  # one entry of the 1 x 1 scale, if scales are not standardised
    assert records[-1].terms["reconstruction"] < 0.3 * records[0].terms["reconstruction"]


def test_a_size_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 4"):
        MultiscaleVqConfig(**TINY, perceptual_weight=0).build(30)
