"""New images from a model: `draw_samples(load_model(folder), 16, steps=25)`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast, get_args

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods import Model
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Sampler
from pipeline.nn.condition import VOCABULARY, About
from pipeline.nn.rng import Rng
from pipeline.stages.generate.check_options import check_options

FIXED = ("self", "rng", "about")  # arguments of `sample` that are not options


def draw_samples(
    model: Model, count: int, *, seed: int = 0, about: About = (), batch: int = 32, **options: Any
) -> Tensor:
    """Return new images float32 [count, C, *spatial], about [-1, 1], on the CPU.

    Image i depends on the seed, i, its condition and the weights, and on `count` and `batch` only by rounding.

    Args:
        model: a trained model whose method is a Sampler.
        count: number of images.
        seed: of the images.
        about: attributes of each image (`pipeline.data.images.conditions`), one mapping per image; () for none.
        batch: images drawn at once.
        options: keywords of the method's `sample`.

    Raises:
        ConfigError: the method does not sample, has no such option or no conditions, or the count is not positive.
    """
    if count < 1 or batch < 1:
        raise ConfigError(f"Cannot draw {count} images, {batch} at a time; both numbers must be at least 1.")
    check_request(model.method, options, about)
    parts = [
        draw_part(model.method, range(first, min(first + batch, count)), seed, about, options)
        for first in range(0, count, batch)
    ]
    return torch.cat(parts)


def draw_part(method: Method, rows: range, seed: int, about: About, options: Mapping[str, Any]) -> Tensor:
    """Return the images with these numbers, [len(rows), C, *spatial]; the request was checked before.

    Raises:
        ConfigError: an option is out of its range.
    """
    rng = Rng.scoring(seed, [f"sample {number}" for number in rows], device=device_of(method))
    conditions = {"about": [about[number] for number in rows]} if about else {}
    return cast(Any, method).sample(rng, **conditions, **options).cpu()


def device_of(method: Method) -> torch.device:
    """Return where the weights of a method are."""
    return next(chain(method.parameters(), method.buffers())).device  # eigen-images have no parameters


def check_request(method: Method, options: Mapping[str, Any], about: About) -> None:
    """Check that a method can do what is asked of it.

    Raises:
        ConfigError: it does not sample, has no such option or no conditions (the message lists what it has), or a value
            is of another type or out of range.
    """
    name = method.config.name
    if not isinstance(method, Sampler):
        raise ConfigError(
            f"{name}, as it is configured, does not draw new images. Choose a method that does, such as vae, ddpm or "
            f"dcgan; nightread generate list shows the shipped tasks.{_way_to_sample(method)}"
        )
    has = options_of(method)
    if unknown := sorted(set(options) - has.keys()):
        listed = ", ".join(f"{option}={default!r}" for option, default in has.items()) or "no option"
        raise ConfigError(f"{name} has no option {', '.join(unknown)} when it samples; it has {listed}.")
    if about and not is_conditional(method):
        raise ConfigError(
            f"{name} has no conditions, so it cannot draw images with chosen attributes. Set `about: none`, or choose "
            "a conditional method such as conditional_vae or ddpm with `conditions`."
        )
    check_options(method, options, about, device_of(method))


def _way_to_sample(method: Method) -> str:
    """Return how another configuration of the same method samples; "" where none does."""
    answer = type(method.config).model_fields.get("answer")
    restores = answer is not None and "restoration" in get_args(answer.annotation)
    return f" With `answer: restoration`, {method.config.name} also learns to draw." if restores else ""


def check_words(about: Mapping[str, Any], seen: Sequence[Mapping[str, Any]]) -> None:
    """Check that a condition is one that training images had, since a model has learned no other.

    Raises:
        ConfigError: an attribute has a word that is not in the vocabulary, or that no training image had (the message
            lists the words that they had), or the relative position is not between 0 and 1.
    """
    for attribute, word in about.items():
        if attribute not in VOCABULARY:
            _check_position(word)
            continue
        learned = sorted({str(one[attribute]) for one in seen if attribute in one})
        if word not in learned:
            raise ConfigError(
                f"No training image has the {attribute} {word!r}, so the model cannot draw one. Their "
                f"{attribute} is {', '.join(learned) or 'unknown'}; set `about` to one of these."
            )


def _check_position(value: Any) -> None:
    """Refuse what is not a place along a series (ConfigError)."""
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigError(
            f"relative_position is {value!r}, but it must be a number from 0, the first image of a series, to 1, the "
            "last one. Change `about`."
        )


def check_attributes(method: Method, about: Mapping[str, Any]) -> None:
    """Check that a conditional method uses the attributes of a condition, which it would ignore otherwise.

    Raises:
        ConfigError: it does not use one; the message lists those that it uses.
    """
    conditions = getattr(method.config, "conditions", None)
    if conditions is not None and (unused := sorted(set(about) - set(conditions.use))):
        raise ConfigError(
            f"{method.config.name} is conditioned on {', '.join(conditions.use)}, and would ignore "
            f"{', '.join(unused)}. Leave it out of `about`, or add it to conditions.use of the method and train again."
        )


def options_of(method: Method | type[Method]) -> dict[str, Any]:
    """Return the options of a sampler with their defaults."""
    parameters = inspect.signature(cast(Any, method).sample).parameters
    return {name: one.default for name, one in parameters.items() if name not in FIXED}


def is_conditional(method: Method) -> bool:
    """Return whether a sampler takes conditions, as it was configured."""
    takes = "about" in inspect.signature(cast(Any, method).sample).parameters
    return takes and method.conditional
