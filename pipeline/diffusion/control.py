"""ControlNet: a trainable copy of a diffusion U-Net's encoder, which adds what a picture asks for to a frozen network.

Zhang, Rao and Agrawala, arXiv:2302.05543, section 3: the copy sees x_t and the control c, and its features pass zero
convolutions, whose weights and biases start at 0, before they are added to the skip connections and the middle of the
frozen network. So at the start of the training the controlled network is the frozen one, exactly (eq. 3). MONAI's
`ControlNet` is that copy; here both work on folded patches, and the control's embedding keeps the size of the grid.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call

from pipeline.diffusion.denoiser import GROUPS, Unet, UnetConfig
from pipeline.nn.patches import fold, unfold

Features = tuple[list[Tensor], Tensor]  # what is added to the skip connections, and to the middle


class Control(nn.Module):
    """The copy of an encoder, with zero convolutions.

    Args:
        config: of the network that it controls.
        spatial_dims: 2 or 3.
        channels: of the images.
        seen: channels of the control.
    """

    def __init__(self, config: UnetConfig, spatial_dims: int, channels: int, seen: int = 1) -> None:
        from monai.networks.nets import ControlNet

        super().__init__()
        self.patch, pixels = config.patch, config.patch**spatial_dims
        self.network = ControlNet(
            spatial_dims, channels * pixels, config.residual_blocks, config.widths, config.attention,
            norm_num_groups=GROUPS, num_head_channels=GROUPS, conditioning_embedding_in_channels=seen * pixels,
            conditioning_embedding_num_channels=(config.widths[0],),
        )  # fmt: skip

    def copy_encoder(self, unet: Unet) -> None:
        """Take the weights of a network's encoder; zero convolutions and the control's embedding stay as they are."""
        own = self.network.state_dict()
        theirs = {name: value for name, value in unet.network.state_dict().items() if name in own}
        self.network.load_state_dict(theirs, strict=False)

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor) -> Features:
        """Return what is added to the network's features for x_t, times t [B] and a control c [B, K, *spatial]."""
        return self.network(fold(x_t, self.patch), t, fold(c.to(x_t), self.patch))


def run_controlled(unet: Unet, control: Control, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
    """Return the output [B, C, *spatial] of a network whose features a control changes; its weights get no gradient."""
    skips, middle = control(x_t, t, c)
    frozen = {name: value.detach() for name, value in unet.network.state_dict(keep_vars=True).items()}
    output = functional_call(
        unet.network,
        frozen,
        (fold(x_t, unet.patch), t),
        {"down_block_additional_residuals": tuple(skips), "mid_block_additional_residual": middle},
    )
    return unfold(output, unet.patch)
