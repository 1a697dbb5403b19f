"""A model's answers to a known degradation: its restoration, draws and their mean, or posterior sampling by a
`ddpm`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from pipeline.corruption.operator_spectrum import spectrum_of
from pipeline.diffusion.ddrm import Spectrum, draw_ddrm
from pipeline.diffusion.posterior import PosteriorConfig, draw_posterior, repaint, require_gaussian
from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Inpainter, Reconstructor, Restorer
from pipeline.methods.ddpm import DiffusionModel
from pipeline.nn.repair import mean_of_draws
from pipeline.nn.rng import Rng
from pipeline.stages.generate.draw import device_of
from pipeline.stages.generate.restoration.classical_restorers import missing_of
from pipeline.stages.generate.restoration.known_degradation import KnownDegradation
from pipeline.stages.generate.restoration.model_answer import answer_of
from pipeline.stages.generate.restoration.paired import Answer
from pipeline.types import Batch


def require_restorer(method: Method) -> None:
    """Refuse a method that neither restores nor can be sampled given a measurement (ConfigError)."""
    if isinstance(method, DiffusionModel):
        require_gaussian(method.process)
    elif not isinstance(method, Restorer | Reconstructor):
        raise ConfigError(
            f"{method.config.name} does not turn an image into an image, so it cannot restore one. Choose "
            "regression_unet, conditional_ddpm, conditional_flow, conditional_gan, a ddpm of Gaussian noise, or a "
            "method that reconstructs."
        )


def answers_of_model(method: Method, degradation: KnownDegradation, config: PosteriorConfig) -> dict[str, Answer]:
    """Return the answers of a method by name, the best of them last: draws, and their mean if it is random."""
    name = method.config.name
    if isinstance(method, DiffusionModel):
        answers = {f"{name}, guided": _guided(method, degradation, config)}
        if len(degradation.way.steps) <= 1:  # several steps have no common singular vectors
            answers[f"{name}, DDRM"] = _by_ddrm(method, degradation, config)
        if degradation.only_hides:
            answers[f"{name}, repaint"] = _repainted(method, config)
    else:
        answers = draws_of(method)
        if degradation.only_hides and isinstance(method, Inpainter):
            answers[f"{name}, codes drawn"] = _inpainted(method)
    return {key: put_back(one) for key, one in answers.items()} if degradation.only_hides else answers


def draws_of(method: Method) -> dict[str, Answer]:
    """Return the answer of a method by its name: one draw and the mean of several where it restores at random."""
    name, one = method.config.name, answer_of(method)
    if isinstance(method, Restorer) and (draws := getattr(method.config, "draws", 1)) > 1:
        return {f"{name}, one draw": one, f"{name}, mean of {draws}": _mean(one, draws)}
    return {name: one}


def put_back(answer: Answer) -> Answer:
    """Return an answer whose pixels outside the hole are the measured ones."""

    def whole(worse: Batch, rng: Rng) -> Tensor:
        """Return the answer in the hole, and the image elsewhere."""
        better = answer(worse, rng).float().cpu()
        return better if worse.condition is None else torch.where(worse.condition > 0, better, worse.images)

    return whole


def _mean(answer: Answer, draws: int) -> Answer:
    def mean(worse: Batch, rng: Rng) -> Tensor:
        """Return the mean of several draws."""
        return mean_of_draws([answer(worse, rng.fork(f"draw {number}")) for number in range(draws)])

    return mean


def _guided(method: DiffusionModel, degradation: KnownDegradation, config: PosteriorConfig) -> Answer:
    def answer(x: Tensor, worse: Batch, rng: Rng) -> Tensor:
        operator = degradation.operator(worse)
        predict = method.denoiser(worse.about if method.conditional else (), len(x))
        return draw_posterior(method.process, predict, operator, operator.read(x), degradation.std, rng, config)

    return _by(method, answer)


def _by_ddrm(method: DiffusionModel, degradation: KnownDegradation, config: PosteriorConfig) -> Answer:
    def answer(x: Tensor, worse: Batch, rng: Rng) -> Tensor:
        operator = degradation.operator(worse)
        predict = method.denoiser(worse.about if method.conditional else (), len(x))
        spectrum = cast(Spectrum, spectrum_of(operator))
        return draw_ddrm(method.process, predict, spectrum, operator.read(x), degradation.std, rng, config)

    return _by(method, answer)


def _inpainted(method: Inpainter) -> Answer:
    def answer(worse: Batch, rng: Rng) -> Tensor:
        """Return the images with what the method draws in the hole."""
        device = device_of(cast(Method, method))
        return method.inpaint(worse.images.to(device), missing_of(worse).to(device) > 0, Rng(rng.keys, device))

    return answer


def _repainted(method: DiffusionModel, config: PosteriorConfig) -> Answer:
    def answer(x: Tensor, worse: Batch, rng: Rng) -> Tensor:
        missing = torch.zeros_like(x[:, :1]) if worse.condition is None else worse.condition
        predict = method.denoiser(worse.about if method.conditional else (), len(x))
        return repaint(method.process, predict, x, missing.to(x.device) > 0, rng, config)

    return _by(method, answer)


def _by(method: DiffusionModel, answer: Callable[[Tensor, Batch, Rng], Tensor]) -> Answer:
    """Return an answer that is computed on the method's device, with its checks."""

    def on_device(worse: Batch, rng: Rng) -> Tensor:
        """Return the images that are drawn given the worse ones."""
        device = device_of(method)
        condition = None if worse.condition is None else worse.condition.to(device)
        x = method.check(worse.images.to(device))
        with method.inference():
            return answer(x, replace(worse, condition=condition), Rng(rng.keys, device))

    return on_device
