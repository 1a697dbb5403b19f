"""Network shared by variational autoencoders with a flat code: MONAI's, with batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai.networks.nets import VarAutoEncoder


def variational_network(
    image_shape: Sequence[int], latent: int, widths: Sequence[int], seen: int | None = None
) -> VarAutoEncoder:
    """Return encoder and decoder between images (C, *spatial) and codes of length `latent`, one halving per width.

    The encoder sees `seen` channels, those of the image by default.

    Instance norm, MONAI's default, would hide an image's overall brightness from the code.
    """
    from monai.networks.nets import VarAutoEncoder

    return VarAutoEncoder(
        len(image_shape) - 1,
        (seen or image_shape[0], *image_shape[1:]),
        image_shape[0],
        latent,
        channels=widths,
        strides=[2] * len(widths),
        norm="batch",
        use_sigmoid=False,
    )
