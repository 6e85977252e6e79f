"""The pose guider: where the face may move, as features that the UNet adds to its first hidden states."""

import torch
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding

from .placement import Placed


class PoseGuider(Placed, ControlNetConditioningEmbedding):
    """Face mask in pixels → features at latent size (published file `pose_guider.pth`).

    The layers are those of a ControlNet's conditioning embedding: eight 3×3 convolutions with SiLU between them,
    three of which halve the size.

    Args:
        conditioning_embedding_channels: channels of the result, those of the UNet's first level.
        block_out_channels: channels of the stages.
    """

    def __init__(self, conditioning_embedding_channels=320, block_out_channels=(16, 32, 96, 256)):
        super().__init__(conditioning_embedding_channels, 3, tuple(block_out_channels))

    def forward(self, face_mask: torch.Tensor) -> torch.Tensor:
        """(batch, 1, height, width) in 0..1 → (batch, channels, height / 8, width / 8)."""
        return super().forward(face_mask.expand(-1, 3, -1, -1))
