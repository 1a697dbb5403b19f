"""Agreement of categories that were learned without labels with the classes of images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.memorisation import share_of


def name_codes(codes: Sequence[int], classes: Sequence[str]) -> dict[int, str]:
    """Return the most frequent class of each code's images, the first by name among equals."""
    seen: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for code, name in zip(codes, classes, strict=True):
        seen[code][name] += 1
    return {code: min(counts, key=lambda name: (-counts[name], name)) for code, counts in seen.items()}


def judge_codes(names: dict[int, str], codes: Sequence[int], classes: Sequence[str], confidence: float) -> Estimate:
    """Return the share of images whose code has the name of their class, with its interval over images.

    Args:
        names: of codes, by other images than these (`name_codes`); a code without a name is wrong.
        codes, classes: of each image.
        confidence: of the interval.
    """
    right = sum(names.get(code) == name for code, name in zip(codes, classes, strict=True))
    return share_of(right, len(classes), confidence)
