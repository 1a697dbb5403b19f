"""Laws of the generative capabilities: over every registered method that has them, and over toys made to pass or fail.

A law is a function of a method and a batch. Reconstructions, maps and scores have their laws in files beside this one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.errors import ConfigError, Rejected, RejectionCode
from pipeline.methods.base import Method, check_finite
from pipeline.methods.capabilities import (
    Codec,
    Editor,
    Embedder,
    Inpainter,
    LevelTokeniser,
    Purifier,
    Restorer,
    Sampler,
    Tokeniser,
    Translator,
)
from pipeline.nn.gradients import keep_gradients, unless_kept
from pipeline.nn.hidden_pixels import check_mask
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between
from pipeline.types import Batch

Answer = Callable[[Tensor, Rng], Tensor]
ORDER = [2, 0, 3, 1]


def rng_of(batch: Batch) -> Rng:
    return Rng.scoring(7, batch.ids)


def rows_are_independent(method: nn.Module, batch: Batch, answer: Answer) -> Tensor:
    """Check order, neighbours, mode, repetition and the global generator; return the answer to the whole batch."""
    state = torch.get_rng_state()
    method.train()
    whole = answer(batch.images, rng_of(batch))
    assert method.training and torch.equal(torch.get_rng_state(), state)
    assert torch.isfinite(whole).all() and not whole.requires_grad
    assert torch.equal(answer(batch.images, rng_of(batch)), whole)
    assert_close(answer(batch.images[ORDER], rng_of(batch).rows(ORDER)), whole[ORDER], rtol=1e-4, atol=1e-4)
    method.eval()
    assert_close(answer(batch.images[1:2], rng_of(batch).rows([1]))[0], whole[1], rtol=1e-4, atol=1e-4)
    return whole


def refuses_what_is_not_finite(answer: Answer, batch: Batch) -> None:
    images = batch.images.clone()
    images[1, 0, 3, 3] = torch.nan
    try:
        answer(images, rng_of(batch))
    except Rejected as error:
        assert error.code is RejectionCode.NON_FINITE
    else:
        raise AssertionError("took NaN")


def law_of_samplers(method: Sampler, batch: Batch) -> None:
    few = {"steps": 2} if "steps" in inspect.signature(method.sample).parameters else {}
    images = rows_are_independent(method, batch, lambda _, rng: method.sample(rng, **few))
    assert images.shape == batch.images.shape and images.dtype == torch.float32
    assert all(not torch.equal(images[0], other) for other in images[1:]), "another key, another image"


def law_of_codecs(method: Codec, batch: Batch) -> None:
    with torch.no_grad():
        code = method.eval().to_code(batch.images)
        assert len(code) == len(batch.ids) and code.ndim == batch.images.ndim
        assert_close(method.to_code(batch.images[ORDER]), code[ORDER], rtol=1e-4, atol=1e-5)
        assert_close(method.to_code(batch.images[1:2])[0], code[1], rtol=1e-4, atol=1e-5)
        assert torch.equal(method.to_code(batch.images), code)
        for z in (code, torch.zeros_like(code), 3 * torch.ones_like(code)):
            images = method.from_code(z)
            assert images.shape == batch.images.shape and torch.isfinite(images).all()
            assert_close(method.from_code(z[1:2])[0], images[1], rtol=1e-4, atol=1e-5)
    assert method.to_code(batch.images.clone().requires_grad_()).requires_grad, "latent models train through it"
    if any(parameter.requires_grad for parameter in method.parameters()):
        assert method.to_code(batch.images).requires_grad


def law_of_tokenisers(method: Tokeniser, batch: Batch) -> None:
    tokens = rows_are_independent(method, batch, lambda x, _: method.to_tokens(x))
    assert tokens.dtype == torch.int64 and len(tokens) == len(batch.ids) and tokens.ndim >= 2
    assert tokens.min() >= 0 and tokens.max() < method.vocabulary
    refuses_what_is_not_finite(lambda x, _: method.to_tokens(x), batch)
    anything = Rng(range(4)).integers(0, method.vocabulary, *tokens.shape[1:])
    for row in (tokens, anything):
        images = method.from_tokens(row)
        assert images.shape == batch.images.shape and torch.isfinite(images).all() and not images.requires_grad
        assert_close(method.from_tokens(row[ORDER]), images[ORDER], rtol=1e-4, atol=1e-5)


def law_of_level_tokenisers(method: LevelTokeniser, batch: Batch) -> None:
    levels = method.to_levels(batch.images)
    alone = method.to_levels(batch.images[1:2])
    for level, one in zip(levels, alone, strict=True):
        assert level.dtype == torch.int64 and level.ndim == batch.images.ndim - 1 and len(level) == len(batch.ids)
        assert level.min() >= 0 and level.max() < method.vocabulary
        assert torch.equal(one[0], level[1])
    sizes = [level.shape[-1] for level in levels]
    assert sizes == sorted(sizes, reverse=True), "finest first"
    refuses_what_is_not_finite(lambda x, _: method.to_levels(x)[0], batch)


def law_of_restorers(method: Restorer, batch: Batch) -> None:
    better = rows_are_independent(method, batch, method.restore)
    assert better.shape[0] == len(batch.ids) and better.shape[2:] == batch.images.shape[2:]
    refuses_what_is_not_finite(method.restore, batch)


def law_of_inpainters(method: Inpainter, batch: Batch) -> None:
    mask = torch.zeros(len(batch.ids), 1, *batch.images.shape[2:], dtype=torch.bool)
    mask[..., 8:20, 12:24] = True

    def inpaint(x: Tensor, rng: Rng) -> Tensor:
        return method.inpaint(x, mask[: len(x)], rng)

    images = rows_are_independent(method, batch, inpaint)
    assert images.shape == batch.images.shape and images.dtype == torch.float32
    assert torch.equal(images[~mask], batch.images[~mask])
    hidden = batch.images.masked_fill(mask, 0.9)
    assert torch.equal(images, inpaint(hidden, rng_of(batch))), "hidden pixels are not read"
    assert not torch.equal(images, inpaint(batch.images, rng_of(batch).fork("other")))
    refuses_what_is_not_finite(inpaint, batch)
    try:
        method.inpaint(batch.images, mask.float(), rng_of(batch))
    except ConfigError:
        return
    raise AssertionError("took a mask of numbers")


def law_of_purifiers(method: Purifier, batch: Batch) -> None:
    def purify(x: Tensor, rng: Rng) -> Tensor:
        return method.purify(x, rng, 0.3, steps=2)

    images = rows_are_independent(method, batch, purify)
    assert images.shape == batch.images.shape and images.dtype == torch.float32
    assert not torch.equal(images, purify(batch.images, rng_of(batch).fork("other")))
    refuses_what_is_not_finite(purify, batch)
    for time, steps in ((0.0, 2), (1.5, 2), (0.3, 0)):
        try:
            method.purify(batch.images, rng_of(batch), time, steps)
        except ConfigError:
            continue
        raise AssertionError(f"took time {time} and {steps} steps")
    with keep_gradients():
        x = batch.images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(purify(x, rng_of(batch))[0].sum(), x)
    assert gradient[0].any() and not gradient[1:].any(), "each row has the gradient of its own image"


def law_of_translators(method: Translator, batch: Batch) -> None:
    assert method.domains and len(set(method.domains)) == len(method.domains)
    for domain in method.domains:
        images = rows_are_independent(method, batch, lambda x, rng, to=domain: method.translate(x, to, rng))
        assert images.shape[0] == len(batch.ids) and images.shape[2:] == batch.images.shape[2:]
        refuses_what_is_not_finite(lambda x, rng, to=domain: method.translate(x, to, rng), batch)
    try:
        method.translate(batch.images, "no such domain", rng_of(batch))
    except ConfigError as error:
        assert all(domain in str(error) for domain in method.domains)
    else:
        raise AssertionError("took a domain that it does not know")


def law_of_embedders(method: Embedder, batch: Batch) -> None:
    vectors = rows_are_independent(method, batch, lambda x, _: method.embed(x))
    assert vectors.ndim == 2 and len(vectors) == len(batch.ids) and vectors.dtype == torch.float32
    assert not torch.equal(vectors[0], vectors[1]), "tells images apart"
    refuses_what_is_not_finite(lambda x, _: method.embed(x), batch)


def draw_zero_layers(method: Any) -> None:
    """Draw layers that begin with zeros, as the last one of a diffusion model does: they hide what goes in."""
    for parameter in method.parameters() if isinstance(method, torch.nn.Module) else ():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.01, generator=torch.Generator().manual_seed(0))


def law_of_editors(method: Editor, batch: Batch) -> None:
    law_of_embedders(method, batch)
    draw_zero_layers(method)
    width = method.embed(batch.images).shape[1]
    one, other = torch.ones(width), -torch.ones(width)
    strength, nothing = torch.ones(4), torch.zeros(4)

    def edit(x: Tensor, rng: Rng) -> Tensor:
        return method.edit(x, one, strength[: len(x)], rng)

    edited = rows_are_independent(method, batch, edit)
    refuses_what_is_not_finite(edit, batch)
    still = method.edit(batch.images, one, nothing, rng_of(batch))
    assert edited.shape == still.shape == batch.images.shape
    assert torch.equal(still, method.edit(batch.images, other, nothing, rng_of(batch))), "strength 0 has no direction"
    assert not torch.allclose(still, edited)


LAWS: dict[type, Callable[[Any, Batch], None]] = {
    Sampler: law_of_samplers,
    Codec: law_of_codecs,
    Tokeniser: law_of_tokenisers,
    LevelTokeniser: law_of_level_tokenisers,
    Restorer: law_of_restorers,
    Inpainter: law_of_inpainters,
    Purifier: law_of_purifiers,
    Translator: law_of_translators,
    Embedder: law_of_embedders,
    Editor: law_of_editors,
}


def test_every_method_keeps_the_laws_of_what_it_can_do(method: Method, batch: Batch) -> None:
    for law in [law for capability, law in LAWS.items() if isinstance(method, capability)]:
        law(method, batch)


class Toy(nn.Module):
    """All capabilities at once, by arithmetic: the embedding is an image's mean and spread."""

    vocabulary, domains = 8, ("bright", "dark")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def sample(self, rng: Rng) -> Tensor:
        return rng.normal(1, 32, 32).clamp(-1, 1)

    def to_code(self, x: Tensor) -> Tensor:
        return self.weight * x

    def from_code(self, z: Tensor) -> Tensor:
        return z / self.weight

    def to_tokens(self, x: Tensor) -> Tensor:
        check_finite(x)
        return ((x[:, 0, ::4, ::4] + 1) / 2 * self.vocabulary).long().clamp(0, self.vocabulary - 1)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        values = 2 * (tokens + 0.5) / self.vocabulary - 1
        return values.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)[:, None]

    def to_levels(self, x: Tensor) -> list[Tensor]:
        check_finite(x)
        return [(x[:, 0, ::step, ::step] > 0).long() for step in (4, 8)]

    def restore(self, worse: Tensor, rng: Rng, condition: Tensor | None = None) -> Tensor:
        check_finite(worse)
        return (worse + 0.1 * rng.normal(*worse.shape[1:])).clamp(-1, 1)

    def inpaint(self, x: Tensor, mask: Tensor, rng: Rng) -> Tensor:
        check_finite(x)
        return rng.normal(*x.shape[1:]).where(check_mask(mask, x), x)

    def purify(self, x: Tensor, rng: Rng, time: float, steps: int = 5) -> Tensor:
        check_finite(x)
        require_between("time", time, 0, 1, above=True)
        require_between("steps", steps, 1)
        with unless_kept():
            return (x + time * rng.normal(*x.shape[1:])).clamp(-1, 1)

    def translate(self, x: Tensor, to: str, rng: Rng) -> Tensor:
        check_finite(x)
        if to not in self.domains:
            raise ConfigError(f"{to!r} is not one of the domains {', '.join(self.domains)}.")
        return x.abs() if to == "bright" else -x.abs()

    def embed(self, x: Tensor) -> Tensor:
        check_finite(x)
        return torch.stack([x.mean(dim=(1, 2, 3)), x.std(dim=(1, 2, 3))], dim=1)

    def edit(self, x: Tensor, direction: Tensor, strength: Tensor, rng: Rng) -> Tensor:
        check_finite(x)
        return x + (strength * direction[0])[:, None, None, None]


class Broken(Toy):
    """The same with one fault in each, of a kind that slips into real methods."""

    def sample(self, rng: Rng) -> Tensor:  # draws from the global generator
        return torch.randn(len(rng), 1, 32, 32)

    def to_code(self, x: Tensor) -> Tensor:  # statistics of the batch
        return self.weight * (x - x.mean())

    def to_tokens(self, x: Tensor) -> Tensor:  # past the end of the vocabulary
        return super().to_tokens(x) + self.vocabulary

    def to_levels(self, x: Tensor) -> list[Tensor]:  # coarsest first
        return super().to_levels(x)[::-1]

    def restore(self, worse: Tensor, rng: Rng, condition: Tensor | None = None) -> Tensor:  # answers to NaN
        return worse.nan_to_num()

    def inpaint(self, x: Tensor, mask: Tensor, rng: Rng) -> Tensor:  # reads what is hidden
        return (super().inpaint(x, mask, rng) + x.mean(dim=(1, 2, 3), keepdim=True)).where(mask, x)

    def purify(self, x: Tensor, rng: Rng, time: float, steps: int = 5) -> Tensor:  # the same noise for every key
        return super().purify(x, Rng([0] * len(x)), time, steps)

    def translate(self, x: Tensor, to: str, rng: Rng) -> Tensor:  # takes any domain
        return super().translate(x, to if to in self.domains else "dark", rng)

    def embed(self, x: Tensor) -> Tensor:  # leaves the mode changed
        self.eval()
        return super().embed(x)


class Drifting(Toy):
    """An editor that changes images whatever the strength."""

    def edit(self, x: Tensor, direction: Tensor, strength: Tensor, rng: Rng) -> Tensor:
        return super().edit(x, direction, strength + 0.1, rng)


@pytest.mark.parametrize("capability", LAWS, ids=lambda one: one.__name__)
def test_a_sound_toy_passes_and_a_broken_one_does_not(capability: type, batch: Batch) -> None:
    sound, broken = Toy(), Drifting() if capability is Editor else Broken()
    assert isinstance(sound, capability) and isinstance(broken, capability)
    LAWS[capability](sound, batch)
    with pytest.raises(AssertionError):
        LAWS[capability](broken, batch)
    assert not isinstance(nn.Identity(), capability)


def test_the_registry_has_samplers_codecs_tokenisers_and_embedders(all_small: list[Method]) -> None:
    """A law over nobody would pass: these capabilities have methods already, and none may lose one unseen."""
    having = {one.__name__: {m.config.name for m in all_small if isinstance(m, one)} for one in LAWS}
    assert having["Sampler"] == {
        "vae", "vampprior", "ddpm", "latent_diffusion", "rectified_flow", "f_anogan", "alpha_gan", "stylegan2", "dcgan",
        "wgan", "wgan_gp", "infogan", "var", "pca", "vq_vae2", "conditional_vae", "text_to_image",
        "controlnet",
    }  # fmt: skip
    assert having["Tokeniser"] == {"vq_vae", "vq_vae2", "vqgan", "multiscale_vq", "var"}
    assert having["LevelTokeniser"] == {"ladder_vq", "multiscale_vq"}
    assert having["Codec"] == {
        "ae", "ae_u", "vae", "vampprior", "vq_vae", "vq_vae2", "vqgan", "f_anogan", "alpha_gan",
        "stylegan2", "multiscale_vq", "dcgan", "wgan", "wgan_gp", "infogan",
        "pca",
    }  # fmt: skip
    assert having["Embedder"] == {"diff_ae", "stylegan2", "infogan", "pca"}
    assert having["Editor"] == {"diff_ae", "stylegan2", "pca"}
    assert having["Restorer"] == {"regression_unet", "conditional_ddpm", "conditional_flow", "conditional_gan"}
    assert having["Inpainter"] == {"var", "vq_vae2"}  # and vqgan with a transformer
    assert having["Purifier"] == {"ddpm", "rectified_flow"}
    assert having["Translator"] == {"cycle_gan"}
