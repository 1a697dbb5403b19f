"""Whether generated images show the words that were asked for, by classifiers trained on real images only.

One classifier per part of the caption (third, finding, side of a lesion): logistic regression on the frozen features of
`image_features`, and on where an image is unlike the mean of the training images, in cells, since pooled features do
not know left from right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.images.captions import Caption
from pipeline.errors import ConfigError
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.condition_agreement import AttributeClassifier
from pipeline.evaluation.image_features import embed_images
from pipeline.evaluation.memorisation import share_of

PARTS = ("third", "finding", "side")
ALL = "all"
CELLS = 8  # per edge
CONFIDENCE = 0.95
LEAST_SPREAD = 0.05  # of a pixel over the training images, so that the air around them does not count
FEWEST = 5  # training images of a word that a classifier can learn


class WordClassifier:
    """Classifiers of the parts of a caption that vary among real images; deterministic.

    Args:
        images: real, [N, C, H, W].
        captions: of each of them.

    Raises:
        ConfigError: no part of the captions has two words with enough images each.
    """

    def __init__(self, images: Tensor, captions: Sequence[Caption]) -> None:
        self.mean, self.spread = images.mean(dim=0), images.std(dim=0).clamp_min(LEAST_SPREAD)
        features, self.by_part = self.describe(images), dict[str, AttributeClassifier]()
        for part in PARTS:
            words = [getattr(caption, part) for caption in captions]
            often = {word for word, count in Counter(words).items() if word and count >= FEWEST}
            rows = [row for row, word in enumerate(words) if word in often]
            if len(often) > 1:
                self.by_part[part] = AttributeClassifier(features[rows], [words[row] for row in rows])
        if not self.by_part:
            raise ConfigError(
                f"The captions of the training images do not vary in {', '.join(PARTS)}, so no classifier can judge "
                "what is drawn. Label more slices, lesions among them."
            )

    def guess(self, images: Tensor) -> dict[str, list[str]]:
        """Return the word of each part for each image; the side is that of a lesion, if there is one."""
        features = self.describe(images)
        return {part: classifier.classify(features) for part, classifier in self.by_part.items()}

    def agreement(self, images: Tensor, captions: Sequence[Caption]) -> dict[str, Estimate]:
        """Return the share of images with the word of their caption, by part, and `all`: with every word of it.

        Only captions with a word that the classifier knows count for its part; a part without any is left out.
        Intervals are Clopper-Pearson's, over images.
        """
        guessed = self.guess(images)
        right: dict[str, list[bool]] = {part: [] for part in (*self.by_part, ALL)}
        for row, caption in enumerate(captions):
            own = {
                part: guessed[part][row] == word
                for part, classifier in self.by_part.items()
                if (word := getattr(caption, part)) in classifier.names
            }
            for part, is_right in own.items():
                right[part].append(is_right)
            if own:
                right[ALL].append(all(own.values()))
        return {part: share_of(sum(rows), len(rows), CONFIDENCE) for part, rows in right.items() if rows}

    def most_frequent(self, captions: Sequence[Caption]) -> dict[str, float]:
        """Return the share of the most frequent word of each part, which is reached without looking at the image."""
        words = {part: [word for one in captions if (word := getattr(one, part))] for part in self.by_part}
        return {part: max(Counter(some).values()) / len(some) for part, some in words.items() if some}

    def describe(self, images: Tensor) -> np.ndarray:
        """Return the classifiers' features of images [N, C, H, W]: [N, D]."""
        unlike = ((images.float() - self.mean) / self.spread).abs()
        cells = [F.adaptive_avg_pool2d(unlike, CELLS), F.adaptive_max_pool2d(unlike, CELLS)]
        return np.concatenate([embed_images(images), *(one.flatten(1).numpy() for one in cells)], axis=1)
