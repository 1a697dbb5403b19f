"""The two sides of an attribute that is edited: normal and lesion, the first and the last third, F and M."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.images.conditions import about_slice
from pipeline.errors import ConfigError
from pipeline.evaluation.linear_probe import FOLDS
from pipeline.stages.generate.codes.editing_task import EditedAttribute
from pipeline.types import SliceRef

YOUNG, OLD = ("0-17", "18-39"), ("60-79", "80+")


@dataclass(frozen=True, slots=True)
class Sides:
    """The two sides of an attribute.

    Attributes:
        names: what the lower and the upper side are called.
        places: int [n], of the images on either side, in order.
        upper: bool [n], which of them are on the upper side.
    """

    names: tuple[str, str]
    places: np.ndarray
    upper: np.ndarray


def sides_of(attribute: EditedAttribute, refs: Sequence[SliceRef]) -> Sides:
    """Return the images on either side of an attribute; those between the sides or without it are left out.

    Raises:
        ConfigError: a side has too few patients; the message counts them.
    """
    names, side_of = _rule(attribute, refs)
    on_side = [side_of(ref) for ref in refs]
    places = np.array([place for place, side in enumerate(on_side) if side is not None], int)
    sides = Sides(names, places, np.array([bool(on_side[place]) for place in places], bool))
    counts = [len({refs[place].patient_id for place in places[sides.upper == side]}) for side in (False, True)]
    if min(counts) < FOLDS:
        raise ConfigError(
            f"{attribute} cannot be edited: of {len(refs)} images, {names[0]} has {counts[0]} patients and "
            f"{names[1]} has {counts[1]}, and each side needs {FOLDS}. Choose another attribute, or other sets in `of`."
        )
    return sides


Side = Callable[[SliceRef], bool | None]  # True: upper, False: lower, None: neither


def _rule(attribute: EditedAttribute, refs: Sequence[SliceRef]) -> tuple[tuple[str, str], Side]:
    if attribute == "lesion":
        return ("normal", "lesion"), lambda ref: ref.label == "abnormal"
    if attribute == "relative_position":
        return ("the first third", "the last third"), _third
    if attribute == "age_band":
        return ("below 40", "60 and above"), lambda ref: _outer(str(about_slice(ref).get("age_band")), YOUNG, OLD)
    return _two_words(attribute, refs)


def _third(ref: SliceRef) -> bool | None:
    position = ref.geometric_position
    return None if position is None or 1 / 3 <= position <= 2 / 3 else position > 0.5


def _outer(word: str, lower: Sequence[str], upper: Sequence[str]) -> bool | None:
    return word in upper if word in lower or word in upper else None


def _two_words(attribute: EditedAttribute, refs: Sequence[SliceRef]) -> tuple[tuple[str, str], Side]:
    """Return the two most frequent words of an attribute, in alphabetical order, and who has which."""
    counts = Counter(str(word) for ref in refs if (word := ref.attributes.get(attribute)))
    if len(counts) < 2:
        raise ConfigError(
            f"{attribute} cannot be edited: {len(refs)} images have {', '.join(counts) or 'no value of it'}, and two "
            "values are needed. Choose another attribute."
        )
    lower, upper = sorted(word for word, _ in counts.most_common(2))
    return (lower, upper), lambda ref: _outer(str(ref.attributes.get(attribute)), (lower,), (upper,))
