"""`var`: training in order, sampling, restoring and inpainting by codes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods import METHODS, build_method
from pipeline.methods.var import NextScalePrediction
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

Small = dict[str, dict[str, Any]]
ABOUT = tuple({"sex": "FM"[i % 2]} for i in range(16))


def build(small: Small, **values: Any) -> NextScalePrediction:
    method = build_method(METHODS["var"](**small["var"] | values), 32)
    assert isinstance(method, NextScalePrediction)
    with torch.no_grad():
        for parameter in method.transformer.parameters():  # DiT's blocks start as nothing
            parameter.normal_(0, 0.3 if parameter.ndim > 1 else 0.1, generator=torch.Generator().manual_seed(1))
        method.codes.quantiser.codebook.normal_(generator=torch.Generator().manual_seed(2))
    return method


@pytest.fixture
def method(small: Small) -> NextScalePrediction:
    """A model with random weights."""
    return build(small)


@pytest.fixture
def conditioned(small: Small) -> NextScalePrediction:
    """One that knows two sexes."""
    method = build(small, conditions={"use": ["sex"], "width": 4})
    method.conditions.seen_sex.fill_(1.0)
    return method


def rng() -> Rng:
    return Rng(range(16))


def test_the_tokeniser_learns_first_and_the_transformer_last_and_alone(small: Small, discs: Any, batch: Batch) -> None:
    method = build(small, tokeniser_share=0.25)
    state = TrainState(method, TrainingConfig(images=32, batch_size=4))
    names = []
    for record in train(state, discs, 32):
        names.append(record.phase)
        state.next_stage()
    assert names == ["tokeniser_train"] * 2 + ["prior"] * 6
    total = method.train().loss(batch, "prior", rng())["total"]
    parameters = dict(method.named_parameters())
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    moved = {name.split(".")[0] for name, g in zip(parameters, gradients, strict=True) if g is not None}
    assert moved == {"transformer"}


def test_the_loss_is_the_mean_of_the_scales_weighted_by_their_codes(method: NextScalePrediction, batch: Batch) -> None:
    terms = method.loss(batch, "prior", rng())
    parts = [terms[f"nll_{edge}"] * edge**2 for edge in (1, 2, 4, 8)]
    assert_close(terms["total"], torch.stack(parts).sum() / 85)
    assert terms["total"] > 1


def test_samples_decode_the_drawn_codes_and_are_likelier_when_colder(method: NextScalePrediction) -> None:
    nll = []
    for options in ({}, {"temperature": 0.3}, {"top_k": 2}, {"top_p": 0.3}, {"top_k": 1}):
        tokens = method.draw_tokens(rng(), **options)
        assert_close(method.sample(rng(), **options), method.from_tokens(tokens))
        nll.append(float(method.nll(tokens).detach().mean()))
    assert nll[0] == max(nll) and nll[-1] == min(nll) and nll[0] - nll[1] > 0.2
    one = method.draw_tokens(rng(), top_k=1)
    assert torch.equal(one, one[:1].expand_as(one))  # the likeliest codes, whatever the key


def test_attributes_change_samples_and_guidance_0_is_the_conditional_model(conditioned: NextScalePrediction) -> None:
    assert conditioned.conditional
    samples = [conditioned.sample(rng(), about=({"sex": sex},) * 16) for sex in "FM"]
    assert not torch.equal(*samples)
    assert torch.equal(conditioned.sample(rng(), about=({"sex": "F"},) * 16, guidance=0.0), samples[0])
    assert not torch.equal(conditioned.sample(rng(), about=({"sex": "F"},) * 16, guidance=2.0), samples[0])
    tokens = conditioned.draw_tokens(rng(), about=ABOUT)
    logits = [conditioned.nll(tokens, conditioned.conditions(one, 16)) for one in (ABOUT, ())]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_nothing_unlikely_is_plain_decoding_and_everything_keeps_the_coarse_scales(small: Small, batch: Batch) -> None:
    lenient, forgot = build(small, threshold=1e6), build(small, threshold=0.0, samples=1)
    own = lenient.to_tokens(batch.images)
    assert_close(lenient.reconstruct(batch.images, rng()), lenient.from_tokens(own))
    redrawn = forgot._restored(own, rng(), ())
    assert torch.equal(redrawn[:, :5], own[:, :5]) and (redrawn[:, 5:] != own[:, 5:]).float().mean() > 0.5
    assert_close(forgot.reconstruct(batch.images, rng()), forgot.from_tokens(forgot._restored(own, rng().fork(0), ())))
    assert torch.equal(forgot.nll(redrawn)[:, :5], forgot.nll(own)[:, :5])


def test_the_finest_scale_is_never_kept_whole(small: Small, batch: Batch) -> None:
    method = build(small, threshold=0.0, keep=9)
    own = method.to_tokens(batch.images)
    redrawn = method._restored(own, rng(), ())
    assert torch.equal(redrawn[:, :21], own[:, :21]) and not torch.equal(redrawn, own)


def test_inpainting_reads_and_keeps_what_is_visible_only(method: NextScalePrediction, batch: Batch) -> None:
    mask = torch.zeros(16, 1, 32, 32, dtype=torch.bool)
    mask[..., 8:24, 10:20] = True
    painted = method.inpaint(batch.images, mask, rng())
    assert torch.equal(painted[~mask], batch.images[~mask]) and not torch.equal(painted, batch.images)
    assert torch.equal(method.inpaint(batch.images.masked_fill(mask, 0.9), mask, rng()), painted)
    other = method.inpaint(batch.images, mask, Rng(range(16, 32)))
    assert (other != painted)[mask].float().mean() > 0.5


def test_with_everything_hidden_inpainting_is_sampling_and_with_nothing_it_is_the_image(
    method: NextScalePrediction, batch: Batch
) -> None:
    hidden = torch.ones(16, 1, 32, 32, dtype=torch.bool)
    assert_close(method.inpaint(batch.images, hidden, rng()), method.sample(rng()))
    assert torch.equal(method.inpaint(batch.images, ~hidden, rng()), batch.images)


def test_fixed_codes_are_those_of_the_image_where_all_of_it_is_visible(
    method: NextScalePrediction, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Tensor] = []
    decode = method.from_tokens
    monkeypatch.setattr(method, "from_tokens", lambda tokens: decoded.append(tokens) or decode(tokens))
    method.inpaint(batch.images, torch.zeros(16, 1, 32, 32, dtype=torch.bool), rng())
    assert torch.equal(decoded[0], method.to_tokens(batch.images))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": 0}, "temperature is 0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 2}, "top_p is 2"),
        ({"guidance": 1.5}, "guidance 1.5"),
        ({"guidance": 101}, "guidance is 101"),
        ({"about": ABOUT}, "no conditions"),
    ],
)
def test_absurd_options_are_refused(method: NextScalePrediction, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        method.sample(rng(), **options)


def test_another_tokeniser_and_a_wrong_mask_are_refused(
    small: Small, method: NextScalePrediction, batch: Batch
) -> None:
    with pytest.raises(ConfigError, match="vq_vae "):
        build(small, tokeniser={"method": {"name": "vq_vae", **small["vq_vae"]}})
    with pytest.raises(ConfigError, match="mask"):
        method.inpaint(batch.images, torch.zeros(16, 1, 32, 32), rng())
