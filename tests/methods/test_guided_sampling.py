"""Samplers with conditions: each row has its own, guidance -1 forgets them, and nothing else is accepted quietly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods import METHODS, build_method
from pipeline.methods.base import Method
from pipeline.nn.rng import Rng

DIFFUSION = ("ddpm", "latent_diffusion", "rectified_flow")
WOMAN, MAN = {"sex": "F"}, {"sex": "M"}


def conditional(name: str, small: dict[str, dict[str, Any]], **values: Any) -> Any:
    """Build the method conditioned on sex, as if trained: both words seen, and a last layer that is not zero."""
    noise = {} if name == "rectified_flow" else {"noise": "gaussian"}
    settings = small[name] | noise | {"conditions": {"use": ("sex",)}} | values
    method: Method = build_method(METHODS[name](**settings), 32, seed=3)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in method.get_submodule("network").parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        method.get_submodule("conditions").seen_sex.fill_(1.0)  # type: ignore[union-attr, operator]
    return method


@pytest.mark.parametrize("name", DIFFUSION)
def test_each_row_is_drawn_for_its_own_attributes(name: str, small: dict[str, dict[str, Any]]) -> None:
    method, rng = conditional(name, small), [1, 2, 2]
    drawn = method.sample(Rng(rng), steps=2, guidance=0.5, about=(WOMAN, WOMAN, MAN))
    assert not torch.allclose(drawn[1], drawn[2], atol=1e-4)
    assert_close(method.sample(Rng([2]), steps=2, guidance=0.5, about=(MAN,))[0], drawn[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", DIFFUSION)
def test_guidance_overrides_the_configured_one_and_minus_one_forgets(
    name: str, small: dict[str, dict[str, Any]]
) -> None:
    plain, guided = conditional(name, small), conditional(name, small, guidance=2.0)
    about, anyone = (WOMAN, MAN), plain.sample(Rng([1, 2]), steps=2)
    one, two = (method.sample(Rng([1, 2]), steps=2, about=about) for method in (plain, guided))
    assert_close(plain.sample(Rng([1, 2]), steps=2, guidance=2.0, about=about), two)
    assert_close(plain.sample(Rng([1, 2]), steps=2, guidance=-1.0, about=about), anyone)
    assert min((one - two).abs().max(), (one - anyone).abs().max()) > 1e-3
    assert guided.passes == 2 * plain.passes


@pytest.mark.parametrize("name", DIFFUSION)
def test_reconstructions_are_conditioned_too(name: str, small: dict[str, dict[str, Any]]) -> None:
    method, x = conditional(name, small), 0.3 * Rng([5, 6]).normal(1, 32, 32)
    for_women = method.reconstruct(x, Rng([1, 2]), about=(WOMAN, WOMAN))
    mixed = method.reconstruct(x, Rng([1, 2]), about=(WOMAN, MAN))
    assert_close(mixed[0], for_women[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mixed[1], for_women[1], atol=1e-4)


@pytest.mark.parametrize("name", DIFFUSION)
@pytest.mark.parametrize(
    "wrong", [{"guidance": 2.0}, {"about": (WOMAN,)}, {"steps": 0}, {"steps": 1001}, {"guidance": float("nan")}]
)
def test_options_without_a_meaning_are_refused(
    name: str, wrong: dict[str, Any], small: dict[str, dict[str, Any]]
) -> None:
    method: Any = build_method(METHODS[name](**small[name]), 32)
    eta = {} if name == "rectified_flow" else {"eta": 0.0}
    with pytest.raises(ConfigError):
        method.sample(Rng([1]), **{"steps": 1} | eta | wrong)
    if eta:
        with pytest.raises(ConfigError, match="eta"):
            method.sample(Rng([1]), steps=1, eta=1.5)
