"""The classifiers of words: they tell left from right, see lesions, and count only the words that were asked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.data.images.captions import Caption, parse_caption
from pipeline.errors import ConfigError
from pipeline.evaluation.word_agreement import WordClassifier

TEXTS = ("MR brain, no finding", "MR brain, lesion left", "MR brain, lesion right")


def make(count: int, seed: int) -> tuple[Tensor, list[Caption]]:
    """Noise with a bright square on the left, on the right, or nowhere."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.2 * torch.randn(count, 1, 32, 32, generator=generator) - 0.5
    for row in range(count):
        if row % 3:
            images[row, 0, 8:20, 4 if row % 3 == 1 else 18 :][:, :10] += 1.0
    return images.clamp(-1, 1), [parse_caption(TEXTS[row % 3]) for row in range(count)]


@pytest.fixture(scope="module")
def classifier() -> WordClassifier:
    return WordClassifier(*make(90, 0))


def test_words_are_read_from_images(classifier: WordClassifier) -> None:
    images, captions = make(60, 1)
    agreement = classifier.agreement(images, captions)
    assert set(agreement) == {"finding", "side", "all"}, "the third does not vary"
    assert all(one.value >= 0.95 for one in agreement.values())
    flipped = classifier.agreement(images.flip(-1), captions)
    assert flipped["side"].value < 0.05 and flipped["finding"].value >= 0.95
    assert flipped["all"].value == pytest.approx(1 / 3, abs=0.05)


def test_only_words_that_were_asked_count(classifier: WordClassifier) -> None:
    images, captions = make(60, 1)
    asked = [parse_caption("MR brain")] * 30 + captions[30:]
    agreement = classifier.agreement(images, asked)
    assert agreement["side"].value >= 0.95 and "third" not in agreement
    assert classifier.most_frequent(captions) == {"finding": pytest.approx(2 / 3), "side": 0.5}


def test_captions_that_do_not_vary_are_refused() -> None:
    images, captions = make(30, 0)
    with pytest.raises(ConfigError, match="do not vary"):
        WordClassifier(images, captions[:1] * 30)
