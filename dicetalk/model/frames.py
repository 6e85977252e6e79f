"""Residual blocks over frames, of Stable Video Diffusion's UNet and decoder, with as few passes over memory as may be.

The weights, their names and the results are those of diffusers' `SpatioTemporalResBlock`; only rounding differs. A
convolution over three neighbouring frames, published as a 3D one with a kernel of (3, 1, 1), is a 2D one with a kernel
of (3, 1) over frames × pixels, which every version of cuDNN has fast kernels for.
"""

import torch
import torch.nn.functional as F
from diffusers.models.resnet import AlphaBlender, ResnetBlock2D, SpatioTemporalResBlock, TemporalResnetBlock
from torch import Tensor, nn


class OverFrames:
    """Computes a 3D convolution with a kernel of (3, 1, 1) in two dimensions; a base to put before a Conv3d class.

    The weight stays (out, in, 3, 1, 1), and takes part as a view. Takes (batch, channels, frames, height, width).
    """

    def _conv_forward(self, input, weight, bias, *args, **kwargs):
        result = F.conv2d(input.flatten(3), weight.squeeze(-1), bias, padding=(1, 0))
        return result.unflatten(3, input.shape[3:])


class TemporalConvolution(OverFrames, nn.Conv3d):
    pass


class Blender(AlphaBlender):
    """One learned share of frames that were looked at alone, and together; diffusers' class has other strategies."""

    def share(self, x: Tensor) -> Tensor:
        """The share of what was looked at alone, (1,), like x; with `switch_spatial_to_temporal_mix` of the other."""
        return torch.sigmoid(self.mix_factor).to(x.device, x.dtype)

    def forward(self, x_spatial: Tensor, x_temporal: Tensor, image_only_indicator=None) -> Tensor:
        """Overwrites x_spatial, where no gradient needs it."""
        factor = self.mix_factor if self.switch_spatial_to_temporal_mix else -self.mix_factor
        share = torch.sigmoid(factor).to(x_spatial.device, x_spatial.dtype)  # of x_temporal
        if torch.is_grad_enabled() or torch.compiler.is_compiling():  # which would copy a view that is overwritten
            return torch.lerp(x_spatial, x_temporal, share)
        return x_spatial.lerp_(x_temporal, share)


class FrameResBlock(SpatioTemporalResBlock):
    """`SpatioTemporalResBlock` whose embedding, if it has one, comes with its SiLU applied."""

    def forward(self, hidden_states: Tensor, temb: Tensor | None = None, image_only_indicator=None) -> Tensor:
        """(batch·frames, channels, height, width) → the same with the block's number of channels."""
        frames = image_only_indicator.shape[-1]
        x = _spatial(self.spatial_res_block, hidden_states, temb)
        alone = along_frames(x, frames)
        together = _temporal(self.temporal_res_block, alone, temb)
        blended = self.time_mixer(alone, together)
        if blended is alone:
            return x
        return blended.transpose(1, 2).squeeze(-1).unflatten(3, x.shape[2:]).flatten(0, 1)


def along_frames(x: Tensor, frames: int) -> Tensor:
    """(batch·frames, channels, height, width) → a view (batch, channels, frames, height·width, 1)."""
    return x.unflatten(0, (-1, frames)).flatten(3).transpose(1, 2)[..., None]


def use_frame_blocks(network: nn.Module) -> nn.Module:
    """Let a network that was built from diffusers' residual blocks over frames compute them this way; returns it."""
    for module in network.modules():
        if type(module) is SpatioTemporalResBlock:
            module.__class__ = FrameResBlock
        elif type(module) is AlphaBlender:
            module.__class__ = Blender
        elif type(module) is nn.Conv3d and module.kernel_size == (3, 1, 1):
            module.__class__ = TemporalConvolution
    return network


def _spatial(block: ResnetBlock2D, x: Tensor, embedding: Tensor | None) -> Tensor:
    h = block.conv1(_activated(block.norm1(x)))
    if embedding is not None:
        h = h.add_(block.time_emb_proj(embedding)[:, :, None, None])
    h = block.norm2(h)  # under the same name, so that nothing keeps what went in
    h = block.conv2(_activated(h))
    return h.add_(x if block.conv_shortcut is None else block.conv_shortcut(x))


def _temporal(block: TemporalResnetBlock, x: Tensor, embedding: Tensor | None) -> Tensor:
    """x: (batch, channels, frames, pixels, 1), and so is what comes out."""
    h = block.conv1(_activated(block.norm1(x)))
    if embedding is not None:
        h = h.add_(block.time_emb_proj(embedding).unflatten(0, (len(x), -1)).transpose(1, 2)[..., None, None])
    h = block.norm2(h)
    return block.conv2(_activated(h)).add_(x)


def _activated(x: Tensor) -> Tensor:
    return F.silu(x, inplace=not torch.is_grad_enabled())
