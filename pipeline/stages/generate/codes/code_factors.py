"""Mutual information gap of a codec's dimensions over attributes of held-out images, beside what needs no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.evaluation.disentanglement import InformationGap, mutual_information_gap
from pipeline.evaluation.markdown import markdown_table
from pipeline.nn.condition import Attribute

POSITIONS = 5  # equal parts of a series, as levels of relative_position
SHUFFLES, TAIL = 40, 0.95
SHUFFLED = "shuffled factors, 95 % below"
Numbers = np.ndarray


def measure_factors(
    name: str, codes: Numbers, images: Numbers, about: Sequence[Mapping[str, Any]], factors: Sequence[Attribute]
) -> dict[str, InformationGap]:
    """Return the gaps of a codec, of the principal components of the same images, and of shuffled factors, by name.

    Args:
        name: of the codec.
        codes: [N, D].
        images: [N, pixels].
        about: attributes of each image; images that lack one of the factors are left out.
        factors: attributes.

    Raises:
        ConfigError: a factor does not vary among the images, or the codes have a single dimension.
    """
    whole = [place for place, row in enumerate(about) if all(factor in row for factor in factors)]
    if not whole:
        raise ConfigError(f"No held-out image has all of {', '.join(factors)}. Leave out those that the files lack.")
    codes = codes[whole]
    levels: dict[str, Numbers] = {name: _levels([about[place][name] for place in whole]) for name in factors}
    components = _components(images[whole], codes.shape[1])
    return {
        name: mutual_information_gap(codes, levels),
        "eigen-images": mutual_information_gap(components, levels),
        SHUFFLED: _shuffled(codes, levels),
    }


def _levels(values: Sequence[Any]) -> Numbers:
    """Return whole numbers: parts of the series of a position, else the place of a word among those that occur."""
    if isinstance(values[0], float):
        return np.minimum(np.asarray(values) * POSITIONS, POSITIONS - 1).astype(int)
    return np.unique([str(value) for value in values], return_inverse=True)[1]


def _components(images: Numbers, count: int) -> Numbers:
    """Return the first principal components of images [N, pixels]: [N, at most `count`]."""
    centred = images - images.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :count] * sizes[:count]


def _shuffled(codes: Numbers, levels: Mapping[str, Numbers]) -> InformationGap:
    """Return the gaps that 95 % of random factors stay below: what no knowledge reaches with as many images."""
    rng = np.random.default_rng(0)
    drawn = [
        mutual_information_gap(codes, {name: rng.permutation(values) for name, values in levels.items()})
        for _ in range(SHUFFLES)
    ]
    of_factor = {name: float(np.quantile([one.of_factor[name] for one in drawn], TAIL)) for name in levels}
    return InformationGap(float(np.quantile([one.gap for one in drawn], TAIL)), of_factor, {})


def warn_of_gap(gaps: Mapping[str, InformationGap]) -> list[str]:
    """Return a sentence if the first code's gap is not above those of all others."""
    name, *others = gaps
    above = [other for other in others if gaps[other].gap >= gaps[name].gap]
    listed = " and ".join(f"{gaps[other].gap:.3f} of {other}" for other in above)
    return (
        [f"{name} gives the factors no dimensions of their own: MIG {gaps[name].gap:.3f}, {listed}."] if above else []
    )


def factors_table(gaps: Mapping[str, InformationGap]) -> str:
    """Return the gaps as a Markdown table, the dimension that knows a factor best in brackets."""
    names = list(next(iter(gaps.values())).of_factor)
    rows = [[code, f"{one.gap:.3f}", *(_cell(one, name) for name in names)] for code, one in gaps.items()]
    return markdown_table(["code", "MIG", *names], rows)


def _cell(gap: InformationGap, factor: str) -> str:
    place = gap.dimension.get(factor)
    return f"{gap.of_factor[factor]:.3f}" + ("" if place is None else f" (dimension {place})")
