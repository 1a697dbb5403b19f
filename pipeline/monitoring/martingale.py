"""Conformal test martingales: a bettor's capital against the claim that nothing has changed.

The bettor starts with 1 and bets on each p-value; if the p-values are independent and uniform, the bets are fair, and
by Ville's inequality the probability that the capital *ever* reaches 1/alpha is at most alpha: over all scans and
nights together, however often somebody looks. Large capital is evidence against exchangeability.

The strategy is the Composite Jumper (Vovk et al., "Retrain or not retrain: conformal test martingales for change-point
detection", COPA 2021, arXiv:2102.10439, algorithm 1 and section 3): experts bet 1 + eps (p - 1/2), a share J of the
capital jumps between experts at each step, and the capital is spread over several J. Beyond the source, experts with
twice its slope bet too, and experts on |2 p - 1|, which win where scores spread out or draw together.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

LEAST_AFTER = 5
JUMPS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LINEAR = (-2.0, -1.0, 0.0, 1.0, 2.0)  # slopes of the bets on p; 0 keeps the capital
SPREAD = (-2.0, -1.0, 1.0, 2.0)  # slopes of the bets on |2 p - 1|


def log_capital(
    p_values: np.ndarray,
    jumps: tuple[float, ...] = JUMPS,
    linear: tuple[float, ...] = LINEAR,
    spread: tuple[float, ...] = SPREAD,
) -> np.ndarray:
    """Return the natural logarithm of the capital after each p-value, float64 of the p-values' shape.

    Args:
        p_values: [..., N] in (0, 1): any number of streams, each along the last axis.
        jumps: shares of the capital that change expert at each step; the capital is spread evenly over them.
        linear, spread: slopes within [-2, 2] of the experts' bets.
    """
    p = np.asarray(p_values, dtype=np.float64)
    bets = _bets(p, linear, spread)
    experts, rate = bets.shape[-1], np.asarray(jumps)[:, None]
    held = np.full((*p.shape[:-1], len(jumps), experts), 1 / experts)
    grown = np.zeros((*p.shape[:-1], len(jumps)))
    result = np.empty_like(p)
    for step in range(p.shape[-1]):
        held = ((1 - rate) * held + rate / experts) * bets[..., step, None, :]
        total = held.sum(axis=-1)
        with np.errstate(divide="ignore"):  # every expert of one J may be ruined at p = 0 or 1
            grown = grown + np.log(total)
        held = np.divide(held, total[..., None], out=np.full_like(held, 1 / experts), where=total[..., None] > 0)
        result[..., step] = np.logaddexp.reduce(grown, axis=-1) - np.log(len(jumps))
    return result


def alarm_level(alpha: float, number: int) -> float:
    """Return the logarithm of the capital at which stream `number` (1, 2, ...) raises an alarm.

    Stream j spends alpha / (j (j + 1)), and these add up to alpha: with as many streams as there will ever be, the
    probability that any of them ever raises a false alarm is at most alpha.
    """
    return float(np.log(number * (number + 1) / alpha))


def first_crossing(log_values: np.ndarray, level: float) -> int | None:
    """Return the index of the first value at or above a level; None without one."""
    reached = np.flatnonzero(log_values >= level)
    return int(reached[0]) if reached.size else None


def likely_change(p_values: np.ndarray, crossing: int) -> int:
    """Return the index of the first p-value after the likeliest change of location or spread, up to the crossing.

    Of all splits it is the one after which the normal scores, or their squares, are furthest from what uniform p-values
    give, in standard errors; at least 5 p-values lie after it.
    """
    z = norm.isf(p_values[: crossing + 1])[::-1]
    after = np.arange(1, len(z) + 1)
    location = np.abs(np.cumsum(z)) / np.sqrt(after)
    spread = np.abs(np.cumsum(z**2 - 1)) / np.sqrt(2 * after)
    evidence = np.maximum(location, spread)[LEAST_AFTER - 1 :]
    return int(len(z) - LEAST_AFTER - np.argmax(evidence)) if len(evidence) else 0


def _bets(p: np.ndarray, linear: tuple[float, ...], spread: tuple[float, ...]) -> np.ndarray:
    """Return the factor by which each expert's capital grows: [..., N, experts]; its mean over uniform p is 1."""
    tilt = 1 + np.asarray(linear) * (p[..., None] - 0.5)
    fan = 1 + np.asarray(spread) * (np.abs(2 * p[..., None] - 1) - 0.5)
    return np.concatenate([tilt, fan], axis=-1)
