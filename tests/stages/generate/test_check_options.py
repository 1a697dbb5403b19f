"""A sampler's options are refused before anything is trained or drawn: wrong types, and values out of range."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_type_hints

import pytest

from pipeline.errors import ConfigError
from pipeline.evaluation.real_images import SMALLEST
from pipeline.methods import METHODS, build_method, parse_method
from pipeline.methods.capabilities import Sampler
from pipeline.stages.generate.draw import check_request, options_of
from pipeline.stages.generate.task_config import FEWEST

ANSWERS = {"vqgan": {"answer": "restoration"}}


@pytest.fixture(scope="module")
def samplers(small: dict[str, dict[str, Any]]) -> dict[str, Any]:
    built = {
        name: build_method(parse_method({"name": name, **small.get(name, {}), **ANSWERS.get(name, {})}), 32)
        for name in METHODS
    }
    return {name: method for name, method in built.items() if isinstance(method, Sampler)}


def test_no_sampler_takes_an_absurd_option(samplers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    checked = 0
    for method in samplers.values():
        hints = get_type_hints(method.sample)
        monkeypatch.setattr(type(method), "forward", lambda *args: pytest.fail("a network worked"))
        for option in options_of(method):
            kinds = {hints[option], *get_args(hints[option])}
            absurd: list[Any] = ["many", True, [1]] if kinds & {int, float} else [3]
            absurd += [-7] if kinds & {int, float} else []
            absurd += [2.5] if int in kinds else []
            for value in absurd:
                with pytest.raises(ConfigError, match=option):
                    check_request(method, {option: value}, ())
                checked += 1
    assert len(samplers) > 15 and checked > 100


def test_defaults_and_whole_numbers_are_taken(samplers: dict[str, Any]) -> None:
    for method in samplers.values():
        check_request(method, {name: value for name, value in options_of(method).items() if value is not None}, ())
    check_request(samplers["pca"], {"temperature": 1}, ())  # a whole number is a number
    check_request(samplers["ddpm"], {"guidance": 0, "steps": None}, ())


def test_numbers_that_yaml_reads_as_text_are_explained(samplers: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="'1e-3'.*1.0e-3"):
        check_request(samplers["pca"], {"temperature": "1e-3"}, ())


def test_a_method_that_could_sample_says_how(small: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="answer: restoration"):
        check_request(build_method(parse_method({"name": "vqgan", **small["vqgan"]}), 32), {}, ())


def test_a_guided_model_needs_conditions_before_it_is_trained(samplers: dict[str, Any]) -> None:
    guided = [name for name, method in samplers.items() if "guidance" in inspect.signature(method.sample).parameters]
    assert {"ddpm", "var", "rectified_flow", "latent_diffusion"} <= set(guided)
    for name in set(guided) - {"text_to_image"}:
        with pytest.raises(ConfigError, match="no conditions"):
            check_request(samplers[name], {"guidance": 1.0}, ())


def test_the_fewest_images_are_those_that_the_judge_needs() -> None:
    assert FEWEST == SMALLEST
