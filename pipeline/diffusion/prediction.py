"""Targets of a denoiser (noise, clean image or velocity), and the conversion of each to the noise.

Notation: x_t = sqrt(a) x_0 + sqrt(1 - a) eps with the signal power a = alpha_bar[t]; v = sqrt(a) eps - sqrt(1 - a) x_0
(Salimans and Ho, arXiv:2202.00512, section 4 and appendix D). The algebra holds for noise of any kind.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Prediction = Literal["epsilon", "x0", "v"]


def target(kind: Prediction, x_0: Tensor, eps: Tensor, signal: Tensor) -> Tensor:
    """Return the training target of the denoiser; `signal` is a, broadcast against images."""
    match kind:
        case "epsilon":
            return eps
        case "x0":
            return x_0
        case "v":
            return signal.sqrt() * eps - (1 - signal).sqrt() * x_0


def to_eps(kind: Prediction, output: Tensor, x_t: Tensor, signal: Tensor) -> Tensor:
    """Return the noise that `output` implies; undefined for `x0` at a = 1, where there is no noise."""
    match kind:
        case "epsilon":
            return output
        case "x0":
            return (x_t - signal.sqrt() * output) / (1 - signal).sqrt()
        case "v":
            return (1 - signal).sqrt() * x_t + signal.sqrt() * output
