"""`stylegan2`: losses by hand, lazy regularisers, the mean style, truncation, and who learns when."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods.capabilities import Editor, Reconstructor, Sampler
from pipeline.methods.stylegan2 import MEAN_LENGTH, MEAN_STYLE, StyleGan2, StyleGan2Config
from pipeline.nn.adversarial import r1_penalty, said_fake, said_real
from pipeline.nn.augment import augment
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

SMALL = StyleGan2Config(
    widths=(4, 8), latent=6, mapping=2, r1_every=3, path_every=2, adapt_images=80, gan_share=0.75
)  # fmt: skip


class Images:
    """Twelve images of noise."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> dict[str, object]:
        image = Rng([i]).uniform(1, 16, 16, low=-1, high=1)[0]
        return {"image": image, "body": torch.ones_like(image, dtype=torch.bool), "id": str(i)}


def build(**values: object) -> StyleGan2:
    return SMALL.model_copy(update=values).build(16)


def batch(count: int = 4) -> Batch:
    x = torch.stack([Images()[i]["image"] for i in range(count)])
    return Batch(x, torch.ones_like(x, dtype=torch.bool), tuple(map(str, range(count))))


def keys(first: int = 0) -> Rng:
    return Rng(range(first, first + 4))


@pytest.fixture(scope="module")
def trained() -> tuple[TrainState, list[tuple[str, dict[str, float]]]]:
    """A short training, and its steps."""
    state = TrainState(build(), TrainingConfig(batch_size=4, images=64, ema_decay=0.0))
    return state, [(record.phase, dict(record.terms)) for record in train(state, Images(), 64)]


def test_regularisers_join_every_third_and_every_second_step_and_the_encoder_comes_last(
    trained: tuple[TrainState, list[tuple[str, dict[str, float]]]],
) -> None:
    steps = trained[1]
    assert [name for name, _ in steps] == ["discriminator", "generator"] * 6 + ["encoder"] * 4
    discriminator, generator = (
        [terms for name, terms in steps if name == phase] for phase in ("discriminator", "generator")
    )
    assert ["r1" in terms for terms in discriminator] == [True, False, False] * 2
    assert ["path" in terms for terms in generator] == [True, False] * 3
    for terms in discriminator:
        by_hand = terms["real"] + terms["generated"] + SMALL.r1 / 2 * 3 * terms.get("r1", 0)
        assert terms["total"] == pytest.approx(by_hand, rel=1e-5)
    for terms in generator:
        assert terms["total"] == pytest.approx(terms["judged"] + SMALL.path * 2 * terms.get("path", 0), rel=1e-5)


def test_the_discriminator_s_loss_by_hand_and_what_it_reaches() -> None:
    method, b = build(), batch()
    with torch.no_grad():
        method.probability.fill_(0.5)
    method.eval()
    terms = method.loss(b, "discriminator", keys())
    rng = keys()
    x_tilde = method.generator(method.generator.styles(rng, 0.9), rng).detach()
    seen, generated = (
        augment(x, torch.tensor(0.5), keys().fork(name)) for x, name in ((b.images, "real"), (x_tilde, "fake"))
    )
    d = method.discriminator
    assert_close(terms["total"], said_real(d(seen)) + said_fake(d(generated)) + 0.15 * r1_penalty(d, seen).mean())
    gradients = torch.autograd.grad(terms["total"], list(method.generator.parameters()), allow_unused=True)
    assert all(g is None for g in gradients), "its turn must not reach the generator"


def test_the_mean_length_is_that_of_the_first_step_and_then_follows_slowly() -> None:
    method = build()
    first = method.loss(batch(), "generator", keys())
    assert method.length.item() == pytest.approx(first["length"].item())
    method.steps[1] = 200 * SMALL.path_every
    second = method.loss(batch(), "generator", keys(8))
    followed = first["length"].item() + MEAN_LENGTH * (second["length"].item() - first["length"].item())
    assert method.length.item() == pytest.approx(followed)


def test_the_mean_style_runs_behind_the_styles_in_training_only() -> None:
    method = build()
    styles = method.generator.eval().styles(keys(), 0.0)
    assert torch.equal(method.generator.mean, torch.zeros(6))
    method.generator.train().styles(keys(), 0.0)
    two = method.generator.mapping(keys().normal(2, 6).flatten(0, 1))
    assert_close(styles, two[::2, None].expand_as(styles))
    assert_close(method.generator.mean, MEAN_STYLE * two[::2].mean(dim=0))


def test_every_image_has_two_styles_at_mixing_1() -> None:
    generator = build().generator.eval()
    mixed, single = generator.styles(keys(), 1.0), generator.styles(keys(), 0.0)
    assert torch.equal(mixed[:, 0], single[:, 0]) and not (mixed[:, -1] == single[:, -1]).all(dim=1).any()


def test_augmentation_rises_while_the_discriminator_is_sure_of_real_images_and_is_constant_without_adaptation() -> None:
    method, b = build(augmentation=0.2), batch()
    for _ in range(2):
        with torch.no_grad():
            method.discriminator.answer[-2].bias.fill_(100.0)
            method.sign.fill_(0.9)
        method.loss(b, "discriminator", keys())
    assert method.probability.item() == pytest.approx(0.2 + 2 * 4 / 80)
    with torch.no_grad():
        method.discriminator.answer[-2].bias.fill_(-100.0)
        method.sign.fill_(0.0)
    method.loss(b, "discriminator", keys())
    assert method.probability.item() == pytest.approx(0.2 + 4 / 80)
    constant = build(augmentation=1.0, adapt_images=None)
    constant.loss(b, "discriminator", keys())
    assert constant.probability.item() == 1


def test_truncation_leads_to_the_mean_style(trained: tuple[TrainState, object]) -> None:
    method = trained[0].method
    with torch.no_grad():
        method.generator.mean.copy_(torch.arange(6.0))
    free, half, none = (method.draw_style(keys(), psi) for psi in (1.0, 0.5, 0.0))
    mean = method.generator.mean
    assert_close(free, method.generator.mapping(keys().fork("z").normal(6)).detach())
    assert_close(half, (free + mean) / 2)
    assert_close(none, mean.expand_as(none))
    assert not torch.equal(method.sample(keys()), method.sample(keys(), truncation=0.5))


@pytest.mark.parametrize("truncation", [-0.1, 1.1, float("nan")])
def test_absurd_truncation_is_refused_with_its_value(truncation: float) -> None:
    with pytest.raises(ConfigError, match=str(truncation)):
        build().sample(keys(), truncation=truncation)


def test_without_an_encoder_it_only_samples_and_all_of_the_training_is_the_gan_s() -> None:
    method, complete = build(gan_share=1.0), build()
    assert isinstance(method, Sampler) and not isinstance(method, Reconstructor | Editor)
    assert {phase.until for phase in method.phases} == {1.0}
    assert isinstance(complete, Sampler) and isinstance(complete, Reconstructor) and isinstance(complete, Editor)


def test_editing_moves_the_style_and_the_code_is_the_style() -> None:
    method, x = build(), batch().images
    w, direction = method.embed(x), Rng([9]).normal(6)[0]
    edited = method.edit(x, direction, torch.tensor([0.0, 1.0, -2.0, 3.0]), keys())
    moved = w + torch.tensor([0.0, 1.0, -2.0, 3.0])[:, None] * direction
    assert_close(edited, method.generator(moved, None).clamp(-1, 1).detach())
    assert_close(edited[:1], method.reconstruct(x, keys())[:1])
    assert_close(method.to_code(x)[..., 0, 0].detach(), w)
