"""Classifier of images by what they show, differentiable down to the pixels: for attacks on it, and on what defends it.

A linear layer on the features of a frozen network (EfficientNet-lite0, ImageNet), each channel averaged over the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pipeline.evaluation.condition_agreement import AttributeClassifier
from pipeline.evaluation.image_features import AT_ONCE
from pipeline.nn.backbone import Backbone, BackboneConfig

DEPTHS, MULTIPLE = (3, 4), 16  # middle stages; their grid halves an image four times
SMALLEST = 64  # pixels to which smaller images are enlarged


class ImageClassifier:
    """Logistic regression on frozen features, trained on real images only; deterministic.

    Args:
        images: [N, C, H, W] about [-1, 1], of at least two classes.
        classes: the word of each.

    Raises:
        ConfigError: all images have the same class.
    """

    def __init__(self, images: Tensor, classes: Sequence[str]) -> None:
        edge = max(SMALLEST, -(-images.shape[-1] // MULTIPLE) * MULTIPLE)
        self.backbone = Backbone(BackboneConfig(depths=DEPTHS, input_size=edge))
        with torch.no_grad():
            features = torch.cat([self.features(part) for part in images.split(AT_ONCE)])
        fitted = AttributeClassifier(features.double().numpy(), classes)
        self.names = fitted.names
        scaler, linear = cast(StandardScaler, fitted.model[0]), cast(LogisticRegression, fitted.model[1])
        weight, bias = linear.coef_ / scaler.scale_, linear.intercept_
        if len(self.names) == 2:  # one row of weights, for the second class
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        self.mean = torch.from_numpy(scaler.mean_).float()
        self.weight, self.bias = torch.from_numpy(weight).float(), torch.from_numpy(bias).float()

    def features(self, x: Tensor) -> Tensor:
        """Return the features of images [B, C, H, W]: float32 [B, F]."""
        return torch.cat([stage.mean(dim=(2, 3)) for stage in self.backbone(x.float())], dim=1)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logit of every class [B, K], in the order of `names`."""
        return (self.features(x) - self.mean) @ self.weight.T + self.bias

    def numbers(self, classes: Sequence[str]) -> Tensor:
        """Return the places of words in `names`, int64 [B]; -1 for a word that no training image had."""
        place = {name: number for number, name in enumerate(self.names)}
        return torch.tensor([place.get(name, -1) for name in classes], dtype=torch.int64)
