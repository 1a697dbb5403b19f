"""Masks of missing pixels: random strokes, boxes, borders, tiles of a checkerboard, and given rectangles.

All lengths are fractions of the image's edge, so that the same configuration suits every size. A mask lies in the plane
of the last two axes and is the same in all slices of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.degrade_operators import Hidden
from pipeline.corruption.random_fields import Range, between
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng

TURNS = 4  # points of a stroke
Share = Annotated[float, Field(ge=0, le=1)]


class MaskConfig(Config):
    """Base of the masks: what each draws, [B, H, W]."""

    def build(self, rng: Rng, spatial: Sequence[int]) -> Hidden:
        """Return the operator that hides this mask's pixels of images with these axes.

        Raises:
            ConfigError: the mask hides every pixel of an image, or none.
        """
        plane = self.draw(rng, *spatial[-2:]).float()
        leading = [1] * (len(spatial) - 2)
        missing = plane.reshape(len(plane), 1, *leading, *plane.shape[1:]).expand(-1, 1, *spatial)
        return hide(missing, self.label)

    @property
    def label(self) -> str:
        """Readable name, as in tables."""
        raise NotImplementedError

    def draw(self, rng: Rng, rows: int, columns: int) -> Tensor:
        """Return bool [B, rows, columns], True where missing; a row depends on its own stream only."""
        raise NotImplementedError


def hide(missing: Tensor, name: str = "the mask") -> Hidden:
    """Return the operator that hides the pixels of a mask [B, 1, *spatial], 1 where missing.

    Raises:
        ConfigError: it hides every pixel of an image, or none.
    """
    share = missing.float().flatten(1).mean(dim=1)
    for wrong, what in ((share == 0, "hides no pixel"), (share == 1, "hides every pixel")):
        if wrong.any():
            raise ConfigError(
                f"{name} {what} of {int(wrong.sum())} of {len(share)} images with {list(missing.shape[2:])} pixels. A "
                "mask must hide some pixels and leave others: change its width or edge, or use larger images."
            )
    return Hidden(missing.float())


class Strokes(MaskConfig):
    """Thick bent strokes at random places, as of a brush."""

    kind: Literal["strokes"] = "strokes"
    most: int = Field(4, ge=1, le=16, description="largest number of strokes; one to so many are drawn")
    width: Range = Field((0.04, 0.12), description="width of a stroke / image edge")
    length: Range = Field((0.1, 0.35), description="length of each of its three straight pieces / image edge")

    @property
    def label(self) -> str:
        """Readable name."""
        return "strokes"

    def draw(self, rng: Rng, rows: int, columns: int) -> Tensor:
        """Return the pixels within half a width of a piece; see the base."""
        here = rng.fork("number").integers(1, self.most + 1)[:, None] > torch.arange(self.most, device=rng.device)
        points = self._points(rng.fork("points"))
        distance = torch.full((len(rng), self.most, rows, columns), torch.inf, device=rng.device)
        place = _places(rows, columns, rng)
        for start, end in zip(points.unbind(2), points.unbind(2)[1:], strict=False):
            distance = torch.minimum(distance, _distance_to(start, end, place))
        half = between(rng.fork("width"), self.width, self.most)[..., None, None] / 2
        reach = half.clamp_min(0.5 / min(rows, columns))  # a stroke through the image hides a pixel at any size
        return ((distance <= reach) & here[..., None, None]).any(dim=1)

    def _points(self, rng: Rng) -> Tensor:
        """Return [B, strokes, TURNS, 2]: a start, and a walk from it within the frame."""
        start = rng.fork("start").uniform(self.most, 1, 2, low=0.1, high=0.9)
        angle = rng.fork("angle").uniform(self.most, TURNS - 1, low=0.0, high=2 * torch.pi)
        length = between(rng.fork("length"), self.length, self.most, TURNS - 1)
        pieces = length[..., None] * torch.stack([angle.sin(), angle.cos()], dim=-1)
        return torch.cat([start, start + pieces.cumsum(dim=2)], dim=2).clamp(0, 1)


class Box(MaskConfig):
    """One box at a random place."""

    kind: Literal["box"] = "box"
    edge: Range = Field((0.25, 0.5), description="each edge of the box / image edge")

    @property
    def label(self) -> str:
        """Readable name."""
        return "box"

    def draw(self, rng: Rng, rows: int, columns: int) -> Tensor:
        """Return the pixels of the box, which lies within the frame; see the base."""
        size = between(rng.fork("edge"), self.edge, 2)
        start = rng.fork("place").uniform(2) * (1 - size).clamp_min(0)
        inside = [
            (axis >= start[:, k, None]) & (axis < (start + size)[:, k, None])
            for k, axis in enumerate(_axes(rows, columns, rng))
        ]
        return inside[0][:, :, None] & inside[1][:, None, :]


class Border(MaskConfig):
    """A border along all four edges: what lies outside the field of view (outpainting)."""

    kind: Literal["border"] = "border"
    width: float = Field(0.125, gt=0, lt=0.5, description="width of the border / image edge")

    @property
    def label(self) -> str:
        """Readable name."""
        return f"border {self.width:g}"

    def draw(self, rng: Rng, rows: int, columns: int) -> Tensor:
        """Return the pixels of the border; nothing is drawn at random."""
        inside = [(axis > self.width) & (axis < 1 - self.width) for axis in _axes(rows, columns, rng)]
        return (~(inside[0][:, None] & inside[1])).expand(len(rng), rows, columns)


class Tiles(MaskConfig):
    """Every other tile of a checkerboard; the two colours together hide every pixel once."""

    kind: Literal["tiles"] = "tiles"
    count: int = Field(8, ge=2, description="tiles along one edge")
    colour: Literal[0, 1] | None = Field(None, description="which tiles are hidden; null draws it")

    @property
    def label(self) -> str:
        """Readable name."""
        return f"tiles {self.count}"

    def draw(self, rng: Rng, rows: int, columns: int) -> Tensor:
        """Return the tiles of one colour; see the base."""
        down, right = ((axis * self.count).long() for axis in _axes(rows, columns, rng))
        colour = torch.full((len(rng),), self.colour or 0, device=rng.device)
        if self.colour is None:
            colour = rng.fork("colour").integers(0, 2)
        return (down[:, None] + right) % 2 == colour[:, None, None]


class Rectangles(MaskConfig):
    """Given rectangles, such as the place of text that was burned into the picture."""

    kind: Literal["rectangles"] = "rectangles"
    boxes: tuple[tuple[Share, Share, Share, Share], ...] = Field(
        min_length=1, description="top, left, bottom and right of each / image edge"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for top, left, bottom, right in self.boxes:
            if top >= bottom or left >= right:
                raise ValueError(
                    f"the box {[top, left, bottom, right]} is empty: give top, left, bottom, right in this order"
                )
        return self

    @property
    def label(self) -> str:
        """Readable name."""
        return f"{len(self.boxes)} given rectangle{'s' * (len(self.boxes) > 1)}"

    def draw(self, rng: Rng, rows: int, columns: int) -> Tensor:
        """Return the pixels whose middle is in one of the rectangles; nothing is drawn at random."""
        down, right = _axes(rows, columns, rng)
        inside = [
            ((down >= top) & (down < bottom))[:, None] & ((right >= left) & (right < end))
            for top, left, bottom, end in self.boxes
        ]
        return torch.stack(inside).any(dim=0).expand(len(rng), rows, columns)


def _axes(rows: int, columns: int, rng: Rng) -> tuple[Tensor, Tensor]:
    """Return the middles of the pixels along both axes, 0 .. 1."""
    return (
        (torch.arange(rows, device=rng.device) + 0.5) / rows,
        (torch.arange(columns, device=rng.device) + 0.5) / columns,
    )


def _places(rows: int, columns: int, rng: Rng) -> Tensor:
    """Return [rows, columns, 2]."""
    return torch.stack(torch.meshgrid(*_axes(rows, columns, rng), indexing="ij"), dim=-1)


def _distance_to(start: Tensor, end: Tensor, place: Tensor) -> Tensor:
    """Return the distance of each place [H, W, 2] to the pieces from start to end [B, K, 2]: [B, K, H, W]."""
    start, along = start[:, :, None, None], (end - start)[:, :, None, None]
    share = ((place - start) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-12)
    return (place - start - share.clamp(0, 1)[..., None] * along).norm(dim=-1)
