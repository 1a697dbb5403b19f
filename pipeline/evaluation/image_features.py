"""Features in which generated images are compared with real ones: a frozen network's, and thumbnails.

The network is EfficientNet-lite0 (ImageNet), its last stage averaged over positions: 320 numbers per channel. Images
are enlarged to 96 pixels, or to the next multiple of 32 above their own size, and never reduced, so that fine detail is
judged too. The features are divided by 3, which makes their mean square about 1 on radiographs and slices: the cubic
kernel of KID is made for features of that size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import ConfigError, Rejected, RejectionCode
from pipeline.nn.backbone import Backbone, BackboneConfig

SMALLEST_EDGE = 16  # pixels
NETWORK_EDGE, MULTIPLE = 96, 32
SCALE = 3.0
THUMBNAIL = 8  # cells per edge
AT_ONCE = 50  # images per pass: the memory of the first layers


def embed_images(images: Tensor) -> np.ndarray:
    """Return the pooled features of images [N, C, H, W] in about [-1, 1]: float64 [N, C * 320]; no randomness.

    About 200 images of 64 pixels per second on one core.
    """
    backbone = _backbone(network_edge(images))
    with torch.inference_mode():
        parts = [backbone(part.float())[0].mean(dim=(2, 3)) for part in images.split(AT_ONCE)]
    return torch.cat(parts).double().numpy() / SCALE


def network_edge(images: Tensor) -> int:
    """Return the edge to which images are enlarged for the network."""
    return max(NETWORK_EDGE, -(-max(images.shape[-2:]) // MULTIPLE) * MULTIPLE)


@lru_cache(maxsize=2)
def _backbone(edge: int) -> Backbone:
    network = Backbone(BackboneConfig(depths=(5,), input_size=edge))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it


def thumbnails(images: Tensor) -> Tensor:
    """Return the mean of 8 by 8 cells of each channel, float32 [N, C * 64]; noise and slight blur hardly change it."""
    return F.adaptive_avg_pool2d(images.float(), THUMBNAIL).flatten(1)


def check_images(images: Tensor, what: str) -> None:
    """Check that `images`, which the message calls `what`, can be judged.

    Raises:
        ConfigError: they are not [N, C, H, W], or smaller than 16 pixels.
        Rejected: NaN or infinity (code non-finite-pixels); the message counts the images.
    """
    if images.ndim != 4 or min(images.shape[1:2]) < 1:
        raise ConfigError(
            f"The {what} have the shape {list(images.shape)}; they must be slices [N, C, H, W]. Judge a volume by its "
            "slices."
        )
    if min(images.shape[-2:]) < SMALLEST_EDGE:
        raise ConfigError(
            f"The {what} have {images.shape[-2]} x {images.shape[-1]} pixels; at least {SMALLEST_EDGE} per edge can be "
            "judged. Generate larger images."
        )
    bad = int((~torch.isfinite(images).flatten(1).all(dim=1)).sum())
    if bad:
        raise Rejected(
            RejectionCode.NON_FINITE,
            f"{bad} of {len(images)} {what} have NaN or infinite pixels; every pixel must be finite. If they were "
            "sampled, train again with a lower learning rate or in fp32.",
        )
