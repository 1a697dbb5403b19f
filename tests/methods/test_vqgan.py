"""`vqgan`: eq. 7 balances the gradients at the last layer, the hinge by hand, and each side moves itself only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ConfigError, Rejected
from pipeline.methods.vqgan import CodeReconstructor, VqganConfig, hinge
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

TINY = {"widths": (4, 8), "entries": 8, "code_width": 4, "discriminator_widths": 4, "discriminator_layers": 1}
FEATURES = {"backbone": {"kind": "random", "depths": (1, 2)}}


def build(**values: Any) -> CodeReconstructor:
    return VqganConfig(**TINY | {"perceptual_weight": 0.0} | values).build(16)


@pytest.fixture
def batch() -> Batch:
    x = Rng([1, 2, 3]).normal(1, 16, 16).clamp(-1, 1)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), ("a", "b", "c"))


def reached(method: CodeReconstructor, term: Tensor) -> set[str]:
    named = [(n, p) for n, p in method.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(term, [p for _, p in named], allow_unused=True, retain_graph=True)
    pairs = zip([n for n, _ in named], gradients, strict=True)
    return {name.split(".")[0] for name, g in pairs if g is not None and g.abs().max() > 0}


@pytest.mark.parametrize("perceptual_weight", [0.0, 0.7])
def test_the_adaptive_weight_balances_the_gradients_of_the_last_layer(batch: Batch, perceptual_weight: float) -> None:
    method = build(perceptual_weight=perceptual_weight, perceptual=FEATURES, adversarial_weight=0.6)
    terms = method.loss(batch, "generator", Rng([1, 2, 3]))
    rec = terms["reconstruction"] + perceptual_weight * terms.get("perceptual", 0.0)
    last = list(method.decoder.parameters())[-2]
    assert last.shape[1] == 1  # the transposed convolution that paints the one channel
    of_rec = torch.autograd.grad(rec, last, retain_graph=True)[0]
    of_gan = torch.autograd.grad(terms["adaptive_weight"] * terms["adversarial"], last, retain_graph=True)[0]
    assert_close(of_gan.norm(), of_rec.norm(), rtol=1e-3, atol=0)
    assert not terms["adaptive_weight"].requires_grad
    assert_close(terms["adversarial"], -method.judge(method(batch.images)[0]).mean())  # lower = judged more real
    expected = rec + 0.25 * terms["commitment"] + 0.6 * terms["adaptive_weight"] * terms["adversarial"]
    assert_close(terms["total"], expected)


def test_a_hole_is_filled_by_the_prior_and_other_codes_stay(batch: Batch) -> None:
    method = build(answer="restoration", prior={"width": 16, "layers": 1, "heads": 2})
    missing = torch.zeros(3, 1, 16, 16, dtype=torch.bool)
    missing[:, :, 5:9, 6:7] = True  # one column of two cells of 4 x 4 pixels, and a third row by one pixel
    seen: dict[str, Tensor] = {}
    resample = method.prior.resample

    def watched(codes: Tensor, where: Tensor, rng: Rng) -> Tensor:
        seen["before"], seen["where"], seen["after"] = codes, where, resample(codes, where, rng)
        return seen["after"]

    method.prior.resample = watched
    image = method.inpaint(batch.images, missing, Rng([1, 2, 3]))  # type: ignore[attr-defined]
    cells = seen["where"][0].nonzero().tolist()
    assert cells == [[1, 1], [2, 1]]
    assert torch.equal(seen["after"][~seen["where"]], seen["before"][~seen["where"]])
    assert_close(image[missing], method.from_tokens(seen["after"])[missing])


def test_each_side_moves_itself_only(batch: Batch) -> None:
    method = build(codebook={"learn": "gradient"})
    codec = method.loss(batch, "codec", Rng([1, 2, 3]))
    assert "adversarial" not in codec and reached(method, codec["total"]) == {"encoder", "quantiser", "decoder"}
    assert reached(method, method.loss(batch, "discriminator", Rng([1, 2, 3]))["total"]) == {"discriminator"}
    modules = {phase.name: phase.modules for phase in method.phases}
    assert "discriminator" not in modules["generator"] + modules["codec"]
    adversarial = method.loss(batch, "generator", Rng([1, 2, 3]))["adversarial"]
    assert {"encoder", "decoder"} <= reached(method, adversarial)


def test_the_hinge_by_hand(batch: Batch) -> None:
    assert hinge(torch.tensor([2.0, 1.0, 0.0, -1.0])).item() == (0 + 0 + 1 + 2) / 4
    method = build().eval()
    terms = method.loss(batch, "discriminator", Rng([1, 2, 3]))
    real, fake = method.judge(batch.images), method.judge(method(batch.images)[0])
    assert_close(terms["total"], 0.5 * ((1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean()))


def test_a_discriminator_learns_to_tell_noise_from_what_the_codec_makes(batch: Batch) -> None:
    method = build().train()
    optimiser = torch.optim.Adam(method.discriminator.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        terms = method.loss(batch, "discriminator", Rng([1, 2, 3]))
        terms["total"].backward()
        optimiser.step()
    assert terms["total"] < 0.3
    with torch.no_grad():
        assert method.judge(batch.images).mean() > 0.5 > -0.5 > method.judge(method(batch.images)[0]).mean()


class Items:
    """A few images as a data set."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": Rng([i]).normal(1, 16, 16)[0].clamp(-1, 1), "body": torch.ones(1, 16, 16) > 0, "id": str(i)}


def test_the_discriminator_takes_part_from_its_start_on() -> None:
    method = build(start=0.5)
    state = TrainState(method, TrainingConfig(images=32, batch_size=4))
    names = []
    for record in train(state, Items(), 32):
        names.append(record.phase)
        state.next_stage()
    assert names == ["codec"] * 4 + ["generator", "discriminator"] * 2


def test_validation_does_not_ask_the_discriminator(batch: Batch) -> None:
    method = build().eval()
    before = method.validation(batch, "generator", Rng([1, 2, 3]))
    with torch.no_grad():
        for parameter in method.discriminator.parameters():
            parameter.add_(1.0)
    after = method.validation(batch, "generator", Rng([1, 2, 3]))
    assert "adversarial" not in before and torch.equal(before["total"], after["total"])


def test_bad_input_is_refused(batch: Batch) -> None:
    with pytest.raises(Rejected, match="1 of 1"):
        build().reconstruct(torch.full((1, 1, 16, 16), torch.inf), Rng([1]))
    with pytest.raises(ConfigError, match="multiple of 8"):
        VqganConfig(perceptual_weight=0).build(20)
    with pytest.raises(ConfigError, match="at least 32"):
        VqganConfig(perceptual_weight=0, discriminator_layers=3).build(16)


SMALL_PRIOR = {"prior": {"width": 8, "layers": 1, "heads": 2}}


def test_the_transformer_learns_last_and_alone(batch: Batch) -> None:
    method = build(start=0.25, answer="restoration", prior_after=0.5, **SMALL_PRIOR)
    state = TrainState(method, TrainingConfig(images=32, batch_size=4))
    names = []
    for record in train(state, Items(), 32):
        names.append(record.phase)
        state.next_stage()
    assert names == ["codec"] * 2 + ["generator", "discriminator"] + ["prior"] * 4
    terms = method.train().loss(batch, "prior", Rng([1, 2, 3]))
    assert reached(method, terms["total"]) == {"prior"}
    before = method.quantiser.embed(torch.arange(8))
    method.after_step("prior")
    assert torch.equal(method.quantiser.embed(torch.arange(8)), before)


def test_samples_follow_their_keys_and_their_prior(batch: Batch) -> None:
    method = build(answer="likelihood", **SMALL_PRIOR)
    for prior in ("learned", "independent"):
        images = method.sample(Rng([1, 2, 3]), prior=prior)
        assert images.shape == (3, 1, 16, 16) and not torch.equal(images[0], images[1])
        assert_close(method.sample(Rng([3, 1]), prior=prior), images[[2, 0]], rtol=1e-4, atol=1e-5)
    tokens = method.to_tokens(batch.images)
    before = method.loss(batch, "prior", Rng([1, 2, 3]))["histogram"]
    assert_close(before, torch.tensor(8.0).log())  # of 8 entries that were never seen
    after = method.eval().loss(batch, "prior", Rng([1, 2, 3]))["histogram"]
    assert after < before and float(method.histogram.counts.sum()) == tokens.numel()
    with pytest.raises(ConfigError, match="top_k"):
        method.sample(Rng([1]), top_k=-1)
    assert not hasattr(build(), "sample")  # no transformer, nothing to draw from


def test_no_unlikely_code_is_plain_decoding_and_every_one_forgets_the_image(batch: Batch) -> None:
    torch.manual_seed(0)
    lenient, forgot = (build(answer="restoration", threshold=t, **SMALL_PRIOR).eval() for t in (1e6, 0.0))
    rng = Rng([1, 2, 3])
    assert_close(lenient.reconstruct(batch.images, rng), lenient.from_tokens(lenient.to_tokens(batch.images)))
    single = Batch(batch.images, batch.body, batch.ids)
    forgot.config = forgot.config.model_copy(update={"samples": 1})
    assert_close(forgot.reconstruct(single.images, rng), forgot.reconstruct(-single.images, rng))
    assert not torch.equal(forgot.reconstruct(single.images, rng), forgot.reconstruct(single.images, Rng([4, 5, 6])))


def test_the_map_is_the_likelihood_of_each_code(batch: Batch) -> None:
    method = build(answer="likelihood", **SMALL_PRIOR).eval()
    heatmap = method.anomaly_map(batch.images, Rng([1, 2, 3]))
    logits = method.prior(method.to_tokens(batch.images))
    nll = -logits.log_softmax(dim=1).gather(1, method.to_tokens(batch.images)[:, None])
    assert heatmap.shape == batch.images.shape and logits.shape == (3, 8, 4, 4)
    assert_close(heatmap[..., 2::4, 2::4].mean(), nll.mean(), rtol=0.2, atol=0)  # between the places it is interpolated
    assert_close(heatmap.mean(dim=(1, 2, 3)), nll.mean(dim=(1, 2, 3)), rtol=0.1, atol=0)


def test_the_transformer_comes_after_the_discriminator() -> None:
    with pytest.raises(ValueError, match="prior_after 0.3 .*start 0.3"):
        build(answer="restoration", prior_after=0.3)
