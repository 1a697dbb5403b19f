"""`dsr`: a second decoder and a head that learn from anomalies made of codes, Zavrtanik et al., ECCV 2022.

DSR (arXiv:2208.01512): lesions that are painted on images look painted; a codec's own entries, put where they do not
belong, decode to anomalies that look like images. Notation: k the codes of an image by a trained codec, k_a the same
with entries replaced in a random region m, x_g = D(k_a) the codec's own decoding (the "general" one, with the anomaly),
x_s the answer of a second decoder, which sees k_a and learns to give the clean image (section 3.2). A head sees
[x_g, x_s] and learns m. The map is -log P(healthy), as in `synthetic_lesion`. A scan is only encoded and decoded: the
head never sees its pixels, so that detail which the codec loses does not count as a difference.

An entry is replaced by one among its nearest in the codebook, at a random rank; how far down the ranks a region may go
is drawn for each (section 3.3). Or, for a share of the regions (`coherent`), by the nearest entries of one entry from
another image: a lesion of one tissue instead of noise. Deviations: one level of codes instead of two; the restriction
to the subspace of normal codes is a stack of dilated convolutions without a quantiser of its own; both networks learn
together, with cross-entropy and soft Dice in place of the focal loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Literal, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.corruption.random_fields import Range, between
from pipeline.corruption.shapes import ShapeConfig, draw_shape
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.methods.capabilities import Tokeniser
from pipeline.methods.component import ComponentConfig
from pipeline.methods.composite import Composite, require_same_grid
from pipeline.nn.code_anomaly import entries_by_distance, replace_codes
from pipeline.nn.masked import within_body
from pipeline.nn.quantise import VectorQuantiser
from pipeline.nn.repair import lesion_surprise, lesion_terms
from pipeline.nn.rng import Rng
from pipeline.nn.unet import GROUPS, UNetFields
from pipeline.nn.vq_codec import code_decoder
from pipeline.types import Batch

DILATIONS = (1, 2, 4, 8, 1)  # of the restriction's layers: they see 33 codes along an edge


@runtime_checkable
class CodebookCodec(Tokeniser, Protocol):
    """A tokeniser whose tokens are the entries of one codebook."""

    quantiser: VectorQuantiser


class DsrConfig(UNetFields, MethodConfig):
    """Configuration of `dsr`; the U-Net's fields are those of the head."""

    name: Literal["dsr"] = "dsr"
    codec: ComponentConfig = Field(
        ComponentConfig(method={"name": "vq_vae", "widths": (32, 64)}), description="the codec whose codes are replaced"
    )
    share: float = Field(
        0.4, gt=0, lt=1, description="share of the training used for the codec, unless it is trained already"
    )
    healthy: float = Field(0.2, ge=0, lt=1, description="share of images in which nothing is replaced")
    most: int = Field(3, ge=1, le=16, description="largest number of regions per image, drawn from 1 to this")
    shape: ShapeConfig = Field(ShapeConfig(), description="size and outline of a region")
    reach: Range = Field((0.1, 1.0), description="share of the codebook, by distance, that a region draws from")
    coherent: float = Field(0.5, ge=0, le=1, description="share of regions filled with entries like a single one")
    restriction: int = Field(64, ge=GROUPS, multiple_of=GROUPS, description="channels of the second decoder")
    dice: float = Field(1.0, ge=0, description="weight of the soft Dice beside the cross-entropy")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam, of second decoder and head")

    def components(self) -> Mapping[str, ComponentConfig]:
        """Return the codec's configuration."""
        return {"codec": self.codec}

    def _build_with(
        self, image_size: int, channels: int, spatial_dims: int, components: Mapping[str, Method]
    ) -> DualDecoder:
        codec = components["codec"]
        if not isinstance(codec, CodebookCodec):
            raise ConfigError(
                f"{codec.config.name} has no codebook whose entries could be replaced. Choose a codec with one: vq_vae "
                "or vqgan."
            )
        require_same_grid("codec", codec, (image_size, channels, spatial_dims))
        self.check_size(image_size, components)
        return DualDecoder(self.name_component("codec", codec), codec)

    def check_size(self, image_size: int, components: Mapping[str, Method]) -> None:
        """Check that the head can halve the grid."""
        require_size(self.name, image_size, self.multiple, 2 * self.multiple)


class DualDecoder(Composite):
    """Codes with replaced entries -> general and clean decoding -> mask of what was replaced.

    Args:
        config: the configuration; its `codec` is the configuration of `codec`.
        codec: the codec; trained here unless it is a trained model.
    """

    config: DsrConfig
    codec: Method
    channels_last = True

    def __init__(self, config: DsrConfig, codec: Method) -> None:
        super().__init__(config, codec.image_size, codec.channels, codec.spatial_dims)
        first, end = self.hold("codec", codec, config.codec, config.share)
        blank = torch.zeros(1, *codec.image_shape)
        halvings = round(log2(codec.image_size / cast(Tokeniser, codec).to_tokens(blank).shape[-1]))
        width, code = config.restriction, self.quantiser.codebook.shape[1]
        self.second_decoder = nn.Sequential(
            *_restriction(self.spatial_dims, code, width),
            code_decoder(self.spatial_dims, width, self.channels, (width,) * halvings, 1),
        )
        self.network = config.unet(self.spatial_dims, 2 * self.channels, 1)
        self.phases = (*first, Phase("head", ("second_decoder", "network"), lr=config.lr, after=end))

    @property
    def quantiser(self) -> VectorQuantiser:
        """The codec's quantiser."""
        return cast(CodebookCodec, self.codec).quantiser

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clean image x_s [B, C, *spatial], and the logit of "anomalous" [B, 1, *spatial], of codes."""
        general = cast(Tokeniser, self.codec).from_tokens(codes)
        clean = self.second_decoder(self.quantiser.embed(codes).detach()).float()
        return clean, self.network(torch.cat([general.to(clean.dtype), clean], dim=1)).float()

    def corrupted(self, codes: Tensor, body: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Return codes [B, *grid] with replaced regions, and the regions: bool [B, 1, *grid].

        Args:
            codes: int64 [B, *grid].
            body: bool [B, 1, *spatial]; regions lie within it.
            rng: one stream per row.
        """
        config, order = self.config, entries_by_distance(self.quantiser.codebook)
        inside = F.interpolate(body.float(), size=codes.shape[1:]) > 0.5
        count = rng.integers(1, config.most + 1) * (rng.fork("some").uniform() >= config.healthy)
        replaced, changed = codes, torch.zeros_like(inside)
        for number in range(config.most):
            stream = rng.fork(f"region {number}")
            region = draw_shape(inside, config.shape, stream)[0][:, 0] >= 0.5
            region &= (count > number).reshape(-1, *[1] * (codes.ndim - 1))
            coherent = stream.fork("coherent").uniform() < config.coherent
            reach = between(stream.fork("reach"), config.reach)
            replaced = replace_codes(replaced, region, order, reach, coherent, stream.fork("codes"))
            changed |= region[:, None]
        return replaced, changed & (replaced != codes)[:, None]

    def own_loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return |x_s - x| within the body + the head's cross-entropy + dice x (1 - soft Dice)."""
        codes, region = self.corrupted(cast(Tokeniser, self.codec).to_tokens(batch.images), batch.body, rng)
        clean, logit = self(codes)
        error = within_body((clean - batch.images).abs().mean(dim=1, keepdim=True), batch.body)
        mask = F.interpolate(region.float(), size=batch.images.shape[2:]) > 0.5
        terms = lesion_terms(logit, (mask & batch.body).float(), batch.body, self.config.dice)
        return {**terms, "total": error + terms["total"], "restored": error}

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return -log P(healthy) [B, 1, *spatial], at least 0; no randomness."""
        with self.inference():
            return lesion_surprise(self(cast(Tokeniser, self.codec).to_tokens(self.check(x)))[1])


def _restriction(spatial_dims: int, code: int, width: int) -> list[nn.Module]:
    """Return layers [B, code, *grid] -> [B, width, *grid] that see far around each code."""
    from monai.networks.blocks import Convolution

    inputs = (code, *[width] * (len(DILATIONS) - 1))
    norm = ("group", {"num_groups": GROUPS})
    return [
        Convolution(spatial_dims, seen, width, dilation=dilation, norm=norm, act="relu")
        for seen, dilation in zip(inputs, DILATIONS, strict=True)
    ]
