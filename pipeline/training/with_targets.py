"""A data set whose items each carry an image of a second domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.training.order import Images


class WithTargets:
    """Images of one domain, each with one of another: its counterpart, or an image of another patient.

    Args:
        data, targets: images of the two domains, on the same grid.
        rows: indices into both, one pair per item.
    """

    def __init__(self, data: Images, targets: Images, rows: Sequence[Sequence[int]]) -> None:
        self.data, self.targets, self.rows = data, targets, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        one, other = self.rows[index]
        return {**self.data[one], "target": self.targets[other]["image"]}
