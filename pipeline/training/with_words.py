"""A data set whose items each carry more words about what they show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.training.order import Images


class WithWords:
    """Training images, each with more attributes than its file gives: a finding, a caption, or a subject.

    Args:
        data: the images.
        words: further attributes, by an item's id.
    """

    def __init__(self, data: Images, words: Mapping[str, Mapping[str, Any]]) -> None:
        self.data, self.words = data, words

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.data[index]
        return {**item, "about": {**item["about"], **self.words.get(item["id"], {})}}
