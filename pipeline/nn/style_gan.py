"""Networks of StyleGAN2: code -> style, styles -> image by modulated convolutions, and a residual discriminator.

Karras et al., arXiv:1912.04958. Learning rates are equalised (arXiv:1710.10196, section 4.1): weights are drawn from
N(0, 1) and scaled in each pass. Deviations: a level is enlarged linearly after its first convolution (a transposed
convolution and a blur there); the discriminator halves by means of 2 pixels, and has no statistics of the batch, since
a loss here is the mean of the losses of single images. The paper's factor of sqrt(2) after a leaky ReLU is in the layer
before it, which is the same and saves a pass over the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.nn.backbone import linear
from pipeline.nn.rng import Rng

GAIN = math.sqrt(2)  # makes up for what a leaky ReLU takes from the variance
SLOPE = 0.2


class EqualLinear(nn.Module):
    """Linear layer whose weights are scaled in each pass, so that Adam moves layers of any width alike.

    Args:
        inputs, outputs: widths.
        gain: standard deviation of outputs for inputs of unit variance, at the start.
        bias: value at the start.
        rate: factor of its learning rate.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = gain * rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Module):
    """Convolution of stride 1 that keeps the grid; its weights are scaled in each pass.

    Args:
        spatial_dims: 2 or 3.
        a, b: input and output channels.
        kernel: its edge, odd.
        gain: standard deviation of outputs for inputs of unit variance, at the start.
    """

    def __init__(self, spatial_dims: int, a: int, b: int, kernel: int = 3, gain: float = GAIN) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(b, a, *[kernel] * spatial_dims))
        self.bias = nn.Parameter(torch.zeros(b))
        self.scale = gain / math.sqrt(a * kernel**spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight * self.scale, self.bias)


class ModulatedConv(nn.Module):
    """Convolution whose weights each row's style w scales per input channel (section 2.2).

    w'_ijk = s_i w_ijk, and with demodulation w''_ijk = w'_ijk / sqrt(sum_ik w'_ijk^2 + epsilon) (equations 1 and 3),
    so that outputs have unit variance for inputs of unit variance (times `GAIN` here). Scaling inputs and outputs
    instead of the weights is the same sum, in one convolution for all rows.

    Args:
        spatial_dims: 2 or 3.
        a, b: input and output channels.
        kernel: its edge, odd.
        style: length of w.
        demodulate: whether to normalise; a layer that gives pixels does not.
    """

    def __init__(
        self, spatial_dims: int, a: int, b: int, kernel: int, style: int, demodulate: bool = True
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(b, a, *[kernel] * spatial_dims))
        self.scale = 1 / math.sqrt(a * kernel**spatial_dims)
        self.to_scales = EqualLinear(style, a, bias=1.0)
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return [B, b, *spatial] of x [B, a, *spatial] and styles w [B, style]."""
        s, weight = self.to_scales(w).float(), self.weight * self.scale
        y = convolve(x * _spread(s, x), weight)
        if not self.demodulate:
            return y
        energy = s.square()[:, None] * weight.square().flatten(2).sum(dim=2)  # [B, b, a]; no matmul: autocast rounds it
        return y * _spread(GAIN * (energy.sum(dim=2) + 1e-8).rsqrt(), y)


class StyledLayer(nn.Module):
    """Modulated convolution, enlargement by 2 if `up`, noise of a learned strength, bias, leaky ReLU."""

    def __init__(self, spatial_dims: int, a: int, b: int, style: int, up: bool) -> None:
        super().__init__()
        self.convolution = ModulatedConv(spatial_dims, a, b, 3, style)
        self.strength, self.bias, self.up = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(b)), up

    def forward(self, x: Tensor, w: Tensor, rng: Rng | None) -> Tensor:
        """Return [B, b, *spatial], or twice the edge if `up`, of x [B, a, *spatial]; no noise without an rng."""
        x = self.convolution(x, w)
        x = enlarge(x) if self.up else x
        if rng is not None:
            x = x + (self.strength * rng.normal(1, *x.shape[2:])).to(x.dtype)
        return F.leaky_relu(x + self.bias.to(x.dtype)[:, *[None] * (x.ndim - 2)], SLOPE)


class Mapping(nn.Module):
    """Code z -> style w: z scaled to unit variance, and a deep network of a hundredth of the learning rate."""

    def __init__(self, latent: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EqualLinear(latent, latent, GAIN, rate=0.01) for _ in range(depth))

    def forward(self, z: Tensor) -> Tensor:
        w = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            w = F.leaky_relu(layer(w), SLOPE)
        return w.float()


class Synthesis(nn.Module):
    """Styles -> image: a learned constant, two styled layers per level, and the sum of an image from each level.

    Args:
        spatial_dims: 2 or 3.
        style: length of w.
        widths: channels of each grid, coarsest first.
        channels: of the image.
        grid: edge of the coarsest grid.
    """

    def __init__(self, spatial_dims: int, style: int, widths: Sequence[int], channels: int, grid: int) -> None:
        super().__init__()
        pairs = [(widths[0], widths[0], False)]
        for a, b in pairwise(widths):
            pairs += [(a, b, True), (b, b, False)]
        self.constant = nn.Parameter(torch.randn(widths[0], *[grid] * spatial_dims))
        self.layers = nn.ModuleList(StyledLayer(spatial_dims, a, b, style, up) for a, b, up in pairs)
        self.to_image = nn.ModuleList(
            ModulatedConv(spatial_dims, width, channels, 1, style, demodulate=False) for width in widths
        )
        self.level = nn.Parameter(torch.zeros(channels, *[1] * spatial_dims))

    def forward(self, styles: Tensor, rng: Rng | None) -> Tensor:
        """Return images float32 [B, C, *spatial], about [-1, 1].

        Args:
            styles: [B, layers, style], coarsest first; a level's image has the style of its last layer.
            rng: source of the noise; None adds nothing, which is its mean.
        """
        x = self.constant.expand(len(styles), *self.constant.shape)
        image = self.level
        for i, (layer, w) in enumerate(zip(self.layers, styles.unbind(dim=1), strict=True)):
            x = layer(x, w, rng)
            if i % 2 == 0:
                image = (enlarge(image) if i else image) + self.to_image[i // 2](x, w).float()
        return image


class ResidualJudge(nn.Module):
    """Image -> one number, by residual levels without norms (section 4.1).

    Args:
        spatial_dims: 2 or 3.
        widths: image channels, then those of each grid, finest first.
        grid: edge of the coarsest grid.
    """

    def __init__(self, spatial_dims: int, widths: Sequence[int], grid: int) -> None:
        super().__init__()
        levels = [_Level(spatial_dims, a, b) for a, b in pairwise(widths[1:])]
        width = widths[-1]
        self.features = nn.Sequential(EqualConv(spatial_dims, widths[0], widths[1], 1), nn.LeakyReLU(SLOPE), *levels)
        self.answer = nn.Sequential(
            EqualConv(spatial_dims, width, width), nn.LeakyReLU(SLOPE), nn.Flatten(),
            EqualLinear(width * grid**spatial_dims, width, GAIN), nn.LeakyReLU(SLOPE),
            EqualLinear(width, 1), nn.Flatten(0),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [B]."""
        return self.answer(self.features(x)).float()


class _Level(nn.Module):
    """Two convolutions and a skip, whose sum has the variance of its input."""

    def __init__(self, spatial_dims: int, a: int, b: int) -> None:
        super().__init__()
        self.first, self.second = EqualConv(spatial_dims, a, a), EqualConv(spatial_dims, a, b, gain=1.0)
        self.skip = EqualConv(spatial_dims, a, b, 1, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.second(halve(F.leaky_relu(self.first(x), SLOPE))), SLOPE)
        return y + self.skip(halve(x))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution of x [B, C, *spatial] on the same grid, in two or three dimensions."""
    convolution = F.conv2d if x.ndim == 4 else F.conv3d
    return convolution(x, weight, bias, padding=weight.shape[-1] // 2)


def enlarge(x: Tensor) -> Tensor:
    """Return x on a grid of twice the edge, linearly: zeros between the pixels, and the filter [1, 3, 3, 1] / 4."""
    return F.interpolate(x, scale_factor=2.0, mode=linear(x.ndim - 2), align_corners=False)


def halve(x: Tensor) -> Tensor:
    """Return means of 2 pixels along each axis."""
    return (F.avg_pool2d if x.ndim == 4 else F.avg_pool3d)(x, 2)


def mix_styles(first: Tensor, second: Tensor, crossing: Tensor, layers: int) -> Tensor:
    """Return the styles [B, layers, D]: w of `first` before the layer `crossing`, of `second` from there on.

    Args:
        first, second: [B, D].
        crossing: int64 [B]; `layers` takes all of them from `first`.
        layers: number of styled layers.
    """
    later = torch.arange(layers, device=first.device) >= crossing[:, None]
    return torch.where(later[:, :, None], second[:, None], first[:, None])


def path_lengths(images: Tensor, styles: Tensor, y: Tensor) -> Tensor:
    """Return |J^T y| of each row, float32 [B], differentiable: how far the image moves with its style (equation 4).

    Args:
        images: float32 [B, C, *spatial], computed from `styles`.
        styles: [B, D], or [B, layers, D], with squared lengths averaged over layers as in the authors' code.
        y: directions in the space of images, drawn from N(0, 1 / pixels).
    """
    (gradient,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)
    squares = gradient.float().square().sum(dim=-1)
    return (squares.mean(dim=1) if squares.ndim == 2 else squares).sqrt()


def _spread(factors: Tensor, x: Tensor) -> Tensor:
    """Return [B, C] as factors of x [B, C, *spatial], in its number format."""
    return factors.to(x.dtype)[:, :, *[None] * (x.ndim - 2)]
