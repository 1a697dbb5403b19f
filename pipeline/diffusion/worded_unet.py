"""The diffusion U-Net that attends to a prompt, as in latent diffusion (arXiv:2112.10752, section 3.3)."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.diffusion.denoiser import GROUPS, UnetConfig
from pipeline.nn.patches import fold, unfold


class WordedUnet(nn.Module):
    """MONAI's diffusion U-Net on patches, with cross-attention to a prompt wherever it attends.

    The prompt's mean vector passes a linear layer and is added to the embedding of the time, as in arXiv:2403.03206,
    section 4: what holds for the whole image reaches every level, also those without attention.
    """

    def __init__(self, config: UnetConfig, spatial_dims: int, channels: int, width: int) -> None:
        from monai.networks.nets import DiffusionModelUNet

        super().__init__()
        self.patch = config.patch
        pixels = channels * config.patch**spatial_dims
        self.network = DiffusionModelUNet(
            spatial_dims, pixels, pixels, config.residual_blocks, config.widths, config.attention,
            norm_num_groups=GROUPS, num_head_channels=GROUPS, with_conditioning=True, cross_attention_dim=width,
            num_class_embeds=1,
        )  # fmt: skip
        self.network.class_embedding = nn.Linear(width, 4 * config.widths[0])

    def forward(self, x_t: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        """Return the prediction [B, C, *spatial] for x_t at times t [B] and the prompt's vectors [B, L, width]."""
        output = self.network(fold(x_t, self.patch), t, context=prompt, class_labels=prompt.mean(dim=1))
        return unfold(output, self.patch)
