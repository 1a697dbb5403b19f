"""`vq_vae2`: both levels learn, the prior leaves the codec alone, and unlikely codes are found and redrawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ConfigError, Rejected
from pipeline.methods.base import Method
from pipeline.methods.capabilities import AnomalyMapper, Reconstructor
from pipeline.methods.vq_vae2 import VqVae2Config
from pipeline.nn.code_prior import nearest_count_most
from pipeline.nn.hierarchical_codec import Coded
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, fit
from pipeline.types import Batch

TINY = {"widths": (4, 8), "entries": 8, "code_width": 4, "prior": {"width": 8, "blocks": 1, "heads": 2}}


def build(size: int = 16, **values: Any) -> Method:
    return VqVae2Config(**TINY | values).build(size).eval()


def batch_of(x: Tensor) -> Batch:
    return Batch(x, torch.ones_like(x, dtype=torch.bool), tuple(map(str, range(len(x)))))


def images(count: int, first: int = 0) -> Tensor:
    return Rng(range(first, first + count)).normal(1, 16, 16).clamp(-1, 1)


def reached(method: Method, term: Tensor) -> set[str]:
    names, parameters = zip(*method.named_parameters(), strict=True)
    gradients = torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True)
    pairs = zip(names, gradients, strict=True)
    return {".".join(name.split(".")[:2]) for name, g in pairs if g is not None and g.abs().max() > 0}


def test_each_phase_moves_its_own_part() -> None:
    method = build(codebook={"learn": "gradient"}).train()
    terms = method.loss(batch_of(images(2)), "codec", Rng([1, 2]))
    assert_close(terms["total"], terms["reconstruction"] + 0.25 * terms["commitment"] + terms["codebook"])
    assert reached(method, terms["codebook"]) == {"codec.quantise_top", "codec.quantise_bottom"}
    assert all(name.startswith("codec.") for name in reached(method, terms["total"]))
    terms = method.loss(batch_of(images(2)), "prior", Rng([1, 2]))
    assert reached(method, terms["total"]) == {"prior.top", "prior.bottom"}


def test_both_levels_commit() -> None:
    method = build().train()
    terms = method.loss(batch_of(images(2)), "codec", Rng([1, 2]))
    top, bottom = method.codec.encode(images(2))
    assert min(top.commitment_loss, bottom.commitment_loss) > 0
    assert_close(terms["commitment"], top.commitment_loss + bottom.commitment_loss)


def test_the_bottom_is_judged_and_redrawn_under_the_top_that_was_restored() -> None:
    method = build(threshold=0.0, samples=1)
    conditions: list[Tensor] = []
    network = method.prior["bottom"].logits
    method.prior["bottom"].logits = lambda codes, coarse: conditions.append(coarse) or network(codes, coarse)
    codes = method.codec.codes(images(2))
    restored = method.resample_unlikely(codes, Rng([1, 2]))
    assert not torch.equal(restored.top, codes.top)
    assert len(conditions) > 1 and all(torch.equal(coarse, restored.top) for coarse in conditions)


def test_the_prior_phase_leaves_the_codebooks_as_they_are() -> None:
    method = build().train()
    method.loss(batch_of(images(2)), "codec", Rng([1, 2]))
    method.after_step("codec")
    before = {name: value.clone() for name, value in method.codec.state_dict().items()}
    method.loss(batch_of(images(2, 9)), "prior", Rng([3, 4]))
    method.after_step("prior")
    assert all(torch.equal(value, before[name]) for name, value in method.codec.state_dict().items())


def test_one_answer_is_offered_and_no_other() -> None:
    kinds = {name: build(answer=name) for name in ("likelihood", "restoration", "reconstruction")}
    assert [n for n, m in kinds.items() if isinstance(m, AnomalyMapper)] == ["likelihood"]
    assert [n for n, m in kinds.items() if isinstance(m, Reconstructor)] == ["restoration", "reconstruction"]
    assert [phase.name for phase in kinds["reconstruction"].phases] == ["codec"]
    assert not hasattr(kinds["reconstruction"], "prior")


def test_the_map_is_the_likelihood_of_each_code_by_hand() -> None:
    method, x = build(answer="likelihood"), images(3)
    top, bottom = method.codec.codes(x)
    assert top.shape == (3, 2, 2) and bottom.shape == (3, 4, 4)
    logs = method.prior["bottom"](bottom, top).log_softmax(dim=1)
    by_hand = torch.stack([logs[b, bottom[b, i, j], i, j] for b in range(3) for i in range(4) for j in range(4)])
    assert_close(method.nll(Coded(top, bottom))[1].flatten(), -by_hand)
    coarse = method.prior["top"].nll(top)
    expected = F.interpolate(-by_hand.reshape(3, 1, 4, 4), 16, mode="bilinear") + F.interpolate(
        coarse[:, None], 16, mode="bilinear"
    )
    assert_close(method.anomaly_map(x, Rng([1, 2, 3])), expected)


def test_no_threshold_reached_is_plain_decoding_and_every_one_reached_forgets_the_image() -> None:
    x = images(2)
    lenient = build(threshold=1e9)
    assert_close(lenient.reconstruct(x, Rng([1, 2])), lenient.codec.image(lenient.codec.codes(x)).detach())
    redrawn = build(threshold=0.0, samples=1)
    first, second = redrawn.reconstruct(x, Rng([1, 2])), redrawn.reconstruct(images(2, 50), Rng([1, 2]))
    assert torch.equal(first, second)
    assert not torch.equal(first, redrawn.reconstruct(x, Rng([3, 4])))


def test_near_restorations_count_more() -> None:
    # Distances 1 and 0.5 of x = 0: weights softmax(1, 2) = 1 / (1 + e), e / (1 + e).
    x, restorations = torch.zeros(1, 1, 2, 2), torch.stack([torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), -0.5)])
    e = torch.e
    assert_close(nearest_count_most(x, restorations, 1.0), torch.full((1, 1, 2, 2), (1 - 0.5 * e) / (1 + e)))
    assert_close(nearest_count_most(x, restorations, 0.0), torch.full((1, 1, 2, 2), 0.25))
    assert torch.isfinite(nearest_count_most(x, torch.zeros(3, 1, 1, 2, 2), 1.0)).all()


def blocks(count: int, first: int = 0) -> Tensor:
    """Images of 4x4 blocks of the shades 0 and 1/8, all arrangements equally likely: shade = code / 8."""
    return F.interpolate(Rng(range(first, first + count)).integers(0, 2, 1, 4, 4) / 8.0, 16, mode="nearest")


def spelled(method: Method) -> Method:
    """Let the codec spell such images block by block; the top level says nothing."""

    def codes(x: Tensor) -> Coded:
        bottom = (x[:, 0, ::4, ::4] * 8).round().long()
        return Coded(bottom.new_zeros(len(x), 2, 2), bottom)

    method.codec.codes = codes
    method.codec.image = lambda code: F.interpolate(code.bottom[:, None] / 8.0, 16, mode="nearest")
    return method


def test_codes_that_no_normal_image_has_are_found_and_redrawn_and_the_others_stay() -> None:
    mapper = spelled(build(answer="likelihood", prior={"width": 16, "blocks": 1, "heads": 2})).train()
    optimiser = torch.optim.Adam(mapper.prior.parameters(), lr=1e-2)
    for step in range(120):
        optimiser.zero_grad()
        mapper.loss(batch_of(blocks(32, 32 * step)), "prior", Rng(range(32)))["total"].backward()
        optimiser.step()
    x = blocks(8, 10**6)
    top, bottom = mapper.nll(mapper.codec.codes(x))
    assert bottom.mean().item() == pytest.approx(0.6931, abs=0.05) and top.mean() < 0.01  # one bit a block, and none
    lesion = x.clone()
    lesion[..., 8:12, 4:8] = 0.75
    maps = mapper.anomaly_map(lesion, Rng(range(8)))[:, 0]
    assert maps[:, 9:11, 5:7].min() > 3 > maps[:, :4].max()
    restorer = spelled(build(threshold=3.0, samples=1, prior={"width": 16, "blocks": 1, "heads": 2}))
    restorer.load_state_dict(mapper.state_dict())
    restored = restorer.reconstruct(lesion, Rng(range(8)))
    elsewhere = torch.ones(16, 16, dtype=torch.bool)
    elsewhere[8:12, 4:8] = False
    assert set(restored[..., 8:12, 4:8].unique().tolist()) <= {0.0, 0.125}
    assert torch.equal(restored[..., elsewhere], x[..., elsewhere])
    assert torch.equal(restorer.reconstruct(x, Rng(range(8))), x)


def test_samples_of_a_learned_prior_are_of_its_images_and_the_histogram_is_its_baseline() -> None:
    # Four blocks of one shade per row of blocks: a bit per row, where independent codes pay a bit per block.
    def rows(count: int, first: int) -> Tensor:
        shades = Rng(range(first, first + count)).integers(0, 2, 1, 4, 1).expand(-1, -1, -1, 4) / 8.0
        return F.interpolate(shades, 16, mode="nearest")

    method = spelled(build(answer="likelihood", prior={"width": 16, "blocks": 1, "heads": 2})).train()
    optimiser = torch.optim.Adam(method.prior.parameters(), lr=1e-2)
    for step in range(120):
        optimiser.zero_grad()
        method.loss(batch_of(rows(32, 32 * step)), "prior", Rng(range(32)))["total"].backward()
        optimiser.step()
    terms = method.eval().loss(batch_of(rows(64, 10**6)), "prior", Rng(range(64)))
    bit = 0.6931
    assert terms["histogram_bottom"].item() == pytest.approx(bit, abs=0.02)
    assert terms["nll_bottom"].item() == pytest.approx(bit / 4, abs=0.04)
    assert terms["perplexity_bottom"].item() == pytest.approx(terms["nll_bottom"].exp().item())
    blocks_of = method.sample(Rng(range(64)))[:, 0, ::4, ::4]
    assert (blocks_of == blocks_of[..., :1]).all(dim=-1).double().mean() > 0.95
    independent = method.sample(Rng(range(64)), prior="independent")[:, 0, ::4, ::4]
    assert (independent == independent[..., :1]).all(dim=-1).double().mean() < 0.3
    assert blocks_of.mean().item() == pytest.approx(0.0625, abs=0.02)
    likeliest = method.sample(Rng(range(8)), top_k=1)
    assert torch.equal(likeliest, likeliest[:1].expand(8, -1, -1, -1))  # one entry per place: no randomness is left


class Noise:
    """Sixteen images."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": images(1, i)[0], "body": torch.ones(1, 16, 16) > 0, "id": str(i)}


def test_codec_first_prior_later_and_a_resumed_training_is_bitwise_the_same(tmp_path: Path) -> None:
    def trained(folder: Path, stop: float | None) -> Method:
        config = TrainingConfig(images=64, batch_size=8, validate_every_images=16, patience=None)
        if stop is not None:
            fit(VqVae2Config(**TINY).build(16), Noise(), None, config.model_copy(update={"max_seconds": stop}), folder)
        return fit(VqVae2Config(**TINY).build(16), Noise(), None, config, folder).method

    whole, parts = trained(tmp_path / "whole", None), trained(tmp_path / "parts", 1e-6)
    pairs = zip(whole.state_dict().values(), parts.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    fresh = VqVae2Config(**TINY).build(16)
    moved = {n.split(".")[0] for n, p in fresh.named_parameters() if not torch.equal(p, whole.state_dict()[n])}
    assert moved == {"codec", "prior"}


def test_bad_input_and_configurations_are_refused() -> None:
    with pytest.raises(Rejected, match="1 of 1"):
        build(answer="likelihood").anomaly_map(torch.full((1, 1, 16, 16), torch.nan), Rng([1]))
    for wrong in ({"temperature": 0.0}, {"temperature": float("nan")}, {"top_k": -1}, {"prior": "none"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            build(answer="likelihood").sample(Rng([1]), **wrong)
    with pytest.raises(ConfigError, match=r"\b20\b.*\b8\b.*\b16\b"):
        build(20)
    with pytest.raises(ValidationError, match=r"prior\.width 16\b.*prior\.heads 3\b"):
        VqVae2Config(prior={"width": 16, "heads": 3})
