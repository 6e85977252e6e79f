"""The denoiser: diffusers' Stable Video Diffusion UNet, its cross-attention taught to hear audio and emotion."""

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock, TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionOutput
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .frames import use_frame_blocks

HEAD_WIDTH = 64
FEED_FORWARD_ELEMENTS = 2**26  # activations that a feed-forward takes at once
ATTENTION_BATCH = 2**15  # CUDA's kernels take no batch of 2**16 or more


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention on packed heads: (batch, n, heads·d), (batch, m, heads·d) twice → (batch, n, heads·d)."""
    if len(query) > ATTENTION_BATCH:
        parts = zip(*(x.split(ATTENTION_BATCH) for x in (query, key, value)))
        return torch.cat([scaled_dot_product_attention(q, k, v, heads) for q, k, v in parts])
    query, key, value = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (query, key, value))
    return rearrange(F.scaled_dot_product_attention(query, key, value), "b h n d -> b n (h d)")


@dataclass(frozen=True)
class Contexts:
    """What the cross-attentions of one forward pass look at. `F` is the number of frames, or 1 when all are equal.

    Attributes:
        clip: (batch, F, 1, dim) one CLIP token.
        audio: (batch, F, tokens, dim).
        emotion: (batch, F, tokens, dim).
        masks: the face mask at each attention grid, {(height, width): (batch or 1, 1, height·width, 1)}.
        audio_scale, emotion_scale: strengths of the two adapters.
        attention: the function that attends, see `scaled_dot_product_attention`.
        mean: the same with the mean of a window's tokens in place of them, `F` gone.
        waves: the frames' sinusoidal positions, {their channels: (frames, channels)}.
    """

    clip: Tensor
    audio: Tensor
    emotion: Tensor
    masks: Mapping[tuple[int, int], Tensor]
    audio_scale: float
    emotion_scale: float
    attention: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    mean: Any = None
    waves: dict[int, Tensor] = field(default_factory=dict)

    def adapters(self):
        """(adapter index, tokens, scale) of the adapters that act."""
        named = ((0, self.audio, self.audio_scale), (1, self.emotion, self.emotion_scale))
        return [adapter for adapter in named if adapter[2] != 0]


class AdapterProjections(nn.Module):
    """Keys and values of the two added contexts, under the names of the published file: 0 is audio, 1 is emotion."""

    def __init__(self, context_dim: int, inner_dim: int):
        super().__init__()
        self.to_k_ip = nn.ModuleList([nn.Linear(context_dim, inner_dim, bias=False) for _ in range(2)])
        self.to_v_ip = nn.ModuleList([nn.Linear(context_dim, inner_dim, bias=False) for _ in range(2)])

    def forward(self, adapter: int, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.to_k_ip[adapter](tokens), self.to_v_ip[adapter](tokens)


class DiceTalkTransformer(TransformerSpatioTemporalModel):
    """Spatial, then temporal transformer blocks, each attending to image, audio and emotion.

    Every context is projected once per batch element and frame (spatial) or once per batch element (temporal).
    Attention to the single CLIP token is that token's value, so no attention is computed for it.
    """

    def forward(self, hidden_states, encoder_hidden_states: Contexts, image_only_indicator, return_dict=False):
        """(batch·frames, channels, height, width) → a tuple with one tensor of the same shape."""
        contexts = encoder_hidden_states
        height, width = hidden_states.shape[-2:]
        frames = image_only_indicator.shape[-1]
        mask = contexts.masks[height, width]

        x = self.proj_in(rearrange(self.norm(hidden_states), "bf c h w -> bf (h w) c"))
        position = self.time_pos_embed(contexts.waves[self.time_proj.num_channels])
        for spatial_block, temporal_block in zip(self.transformer_blocks, self.temporal_transformer_blocks):
            x = self._spatial(spatial_block, x, frames, contexts, mask)
            x = self.time_mixer(
                x_spatial=x,
                x_temporal=self._temporal(temporal_block, x, position, contexts),
                image_only_indicator=image_only_indicator,
            )
        # Into the memory of what came in, or of its layout: PyTorch's group norm on the CPU loses precision on another.
        return (_add(hidden_states, rearrange(self.proj_out(x), "bf (h w) c -> bf c h w", h=height, w=width)),)

    @staticmethod
    def _spatial(block: BasicTransformerBlock, x: Tensor, frames: int, contexts: Contexts, mask: Tensor) -> Tensor:
        x = _self_attention(block.attn1, block.norm1(x), contexts).add_(x)
        x = _spatial_cross_attention(block.attn2, block.norm2(x), frames, contexts, mask).add_(x)
        return _feed_forward(block.norm3, block.ff, x)

    @staticmethod
    def _temporal(block: TemporalBasicTransformerBlock, x: Tensor, position: Tensor, contexts: Contexts) -> Tensor:
        """Frames stay where they are in memory; only the attention among them looks along them."""
        frames = len(position)
        x = (x.unflatten(0, (-1, frames)) + position[:, None]).flatten(0, 1)
        x = _feed_forward(block.norm_in, block.ff_in, x)
        x = _frame_attention(block.attn1, block.norm1, x, frames, contexts)
        x = _temporal_cross_attention(block.attn2, block.norm2(x), frames, contexts).add_(x)
        return _feed_forward(block.norm3, block.ff, x)


# Sums are made in the memory of one of their parts that nothing else needs: of a layer's new output, and where no
# gradient is asked for, of x itself, which is always an earlier sum.


def _add(x: Tensor, y: Tensor) -> Tensor:
    """x + y, in the layout of x."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


def _feed_forward(norm, ff, x: Tensor) -> Tensor:
    """x + ff(norm(x)), a part of the pictures at a time: the hidden layer is 8 times as wide as x."""
    pictures = max(1, FEED_FORWARD_ELEMENTS // x[0].numel())
    parts = [_add(part, _gated(ff, norm(part))) for part in x.split(pictures)]
    return torch.cat(parts) if torch.is_grad_enabled() else x


def _gated(ff, x: Tensor) -> Tensor:
    """diffusers' `FeedForward` with GEGLU, whose gate and product need no memory of their own without gradients."""
    gated, _, out = ff.net
    value, gate = gated.proj(x.flatten(0, 1)).chunk(2, dim=-1)  # two axes, so that a half needs no copy to go on
    if torch.is_grad_enabled():
        hidden = value * F.gelu(gate)
    else:
        hidden = value.mul_(torch.ops.aten.gelu_(gate))
    return out(hidden).unflatten(0, x.shape[:2])


def _self_attention(attn: Attention, x: Tensor, contexts: Contexts) -> Tensor:
    query, key, value = _projected(attn, x)
    return _output(attn, contexts.attention(query, key, value, attn.heads))


def _frame_attention(attn: Attention, norm, x: Tensor, frames: int, contexts: Contexts) -> Tensor:
    """x + attention to norm(x), in which every pixel attends to itself in the other frames.

    x: (batch·frames, pixels, channels). Frames are looked at where they are, one batch element at a time, because no
    view has both batch and pixels on one axis.
    """
    # (batch, pixels, frames, channels) each
    query, key, value = (y.unflatten(0, (-1, frames)).transpose(1, 2) for y in _projected(attn, norm(x)))
    sums = []
    for one, q, k, v in zip(x.unflatten(0, (-1, frames)), query, key, value):
        seen = contexts.attention(q, k, v, attn.heads)
        if seen.is_contiguous():
            sums.append(_add(one, _output(attn, seen).transpose(0, 1)))
        else:  # in the layout of the queries, as CUDA's kernels give it
            sums.append(_add(one, _output(attn, seen.transpose(0, 1))))
    return torch.cat(sums) if torch.is_grad_enabled() else x


def _projected(attn: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of self-attention; nothing keeps x, so that its memory is free after them."""
    return attn.to_q(x), attn.to_k(x), attn.to_v(x)


def _spatial_cross_attention(attn: Attention, x: Tensor, frames: int, contexts: Contexts, mask: Tensor) -> Tensor:
    """x: (batch·frames, pixels, channels); adapters act inside the face mask only."""
    query = attn.to_q(x)
    total = None
    for adapter, tokens, scale in contexts.adapters():
        key, value = (_per_frame(y, frames) for y in attn.processor(adapter, tokens))
        heard = contexts.attention(query, key, value if scale == 1 else value * scale, attn.heads)
        total = heard if total is None else total + heard
        del key, value, heard
    del query
    seen = attn.to_v(contexts.clip)
    if total is None:
        return _output(attn, _per_frame(seen, frames).expand_as(x))
    total = rearrange(total, "(b f) n c -> b f n c", f=frames)
    return _output(attn, torch.addcmul(seen, total, mask).flatten(0, 1))


def _temporal_cross_attention(attn: Attention, x: Tensor, frames: int, contexts: Contexts) -> Tensor:
    """x: (batch·frames, pixels, channels); every pixel and frame attends to the window's mean context."""
    query = rearrange(attn.to_q(x), "(b f) n c -> b (f n) c", f=frames)
    mean = contexts.mean
    total, seen = None, attn.to_v(mean.clip)
    for adapter, tokens, scale in mean.adapters():
        key, value = attn.processor(adapter, tokens)
        value = value if scale == 1 else value * scale
        if total is None:  # the weights of attention sum to 1, so what all pixels see alike goes through it unchanged
            value = value + seen
        heard = contexts.attention(query, key, value, attn.heads)
        total = heard if total is None else total + heard
    total = seen if total is None else total
    return _output(attn, total.expand_as(query).reshape_as(x))


def _per_frame(y: Tensor, frames: int) -> Tensor:
    """(batch, F, tokens, channels), F one or all frames → (batch·frames, tokens, channels)."""
    return y.expand(-1, frames, -1, -1).flatten(0, 1)


def _output(attn: Attention, x: Tensor) -> Tensor:
    return attn.to_out[0](x)


class DiceTalkUNet(UNetSpatioTemporalConditionModel):
    """The published UNet (file `unet.pth`): SVD-XT's with audio and emotion adapters in every cross-attention.

    The arguments are those of `UNetSpatioTemporalConditionModel`; the defaults are the released model's.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = 96,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlockSpatioTemporal",) * 3 + ("DownBlockSpatioTemporal",),
        up_block_types: tuple[str, ...] = ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 3,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int = 2,
        cross_attention_dim: int = 1024,
        transformer_layers_per_block: int = 1,
        num_attention_heads: tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 25,
    ):
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            addition_time_embed_dim=addition_time_embed_dim,
            projection_class_embeddings_input_dim=projection_class_embeddings_input_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            num_attention_heads=num_attention_heads,
            num_frames=num_frames,
        )
        use_frame_blocks(self)
        for module in self.modules():
            if isinstance(module, TransformerSpatioTemporalModel):
                module.__class__ = DiceTalkTransformer
                for block in (*module.transformer_blocks, *module.temporal_transformer_blocks):
                    attn = block.attn2
                    attn.processor = AdapterProjections(attn.cross_attention_dim, attn.inner_dim)
        self.attention = scaled_dot_product_attention
        self._checkpointing = False

    def enable_gradient_checkpointing(self, gradient_checkpointing_func=None):
        """Keep only the layers' inputs for the backward pass, which computes the rest again: less memory, the same
        gradients. The layers of all blocks take part. The argument is diffusers' and is not used."""
        self._checkpointing = True

    def disable_gradient_checkpointing(self):
        self._checkpointing = False

    @property
    def is_gradient_checkpointing(self):
        return self._checkpointing

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
        audio_tokens: Tensor,
        emotion_tokens: Tensor,
        pose_features: Tensor,
        face_mask: Tensor,
        audio_scale: float = 1.0,
        emotion_scale: float = 1.0,
        attention: Callable[[Tensor, Tensor, Tensor, int], Tensor] | None = None,
        return_dict: bool = True,
        mid_features: bool = False,
        deep: Tensor | None = None,
        deep_out: Tensor | None = None,
        only_middle: bool = False,
    ) -> UNetSpatioTemporalConditionOutput | tuple[Tensor]:
        """Predict v for a window of frames. `F` is the number of frames, or 1 when all frames share the value.

        Args:
            sample: (batch, frames, 8, height, width) noisy latents and the portrait's latent, on channels.
            timestep: 0.25·log sigma; a number, or (1,) or (batch,).
            encoder_hidden_states: (batch, F, 1, dim) CLIP token.
            added_time_ids: (batch, 3) frames per second, motion bucket, expression motion bucket.
            audio_tokens: (batch, F, tokens, dim).
            emotion_tokens: (batch, F, tokens, dim).
            pose_features: (batch or 1, F, channels of the first level, height, width).
            face_mask: (batch or 1, 1, pixel height, pixel width) in 0..1.
            audio_scale, emotion_scale: strengths of the adapters, 1 as published.
            attention: the function that attends; torch's own when None.
            mid_features: return a tuple of two: the prediction, and the mid block's output (batch·frames, channels,
                height, width of the last level), which the emotion classifier sees in training.
            deep: what the levels below the first one gave at another call, as `deep_out` got it; they are not computed
                then, and the first level alone is, on the way down and on the way up.
            deep_out: gets that, (batch·frames, deep_channels, height, width); without gradients.
            only_middle: compute no further than the mid block, and return its output alone.

        Returns:
            (batch, frames, 4, height, width), in an output object or a tuple of one.
        """
        batch, frames, _, height, width = sample.shape
        dtype = sample.dtype
        indicator = sample.new_zeros(batch, frames)
        settings: dict[str, Any] = {
            "masks": self._masks(face_mask.to(dtype), height, width),
            "audio_scale": audio_scale,
            "emotion_scale": emotion_scale,
            "attention": self.attention if attention is None else attention,
        }
        tokens = (encoder_hidden_states, audio_tokens, emotion_tokens)
        mean = Contexts(*(each.mean(dim=1) for each in tokens), **settings)
        contexts = Contexts(*tokens, mean=mean, waves=self._waves(frames, sample), **settings)

        timestep = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        embedding = self.time_embedding(self.time_proj(timestep).to(dtype))
        added = self.add_time_proj(added_time_ids.flatten()).reshape(batch, -1)
        embedding = embedding + self.add_embedding(added.to(dtype))
        embedding = F.silu(embedding).repeat_interleave(frames, dim=0, output_size=batch * frames)

        x = self.conv_in(sample.flatten(0, 1))
        x = (x.unflatten(0, (batch, frames)) + pose_features).flatten(0, 1)

        # The blocks' own loops, so that no caller keeps an input alive that its block has done with.
        skips = [x]
        for block in self.down_blocks if deep is None else self.down_blocks[:1]:
            for resnet, transformer in _layers(block):
                x = self._run(resnet, x, embedding, indicator)
                x = self._run(transformer, x, contexts, indicator)[0] if transformer else x
                skips.append(x)
            for downsampler in () if deep is not None else block.downsamplers or ():
                x = downsampler(x)
                skips.append(x)
        if deep is None:
            x = self._run(self.mid_block.resnets[0], x, embedding, indicator)
            for transformer, resnet in zip(self.mid_block.attentions, self.mid_block.resnets[1:]):
                x = self._run(transformer, x, contexts, indicator)[0]
                x = self._run(resnet, x, embedding, indicator)
        if only_middle:
            return x
        middle = x if mid_features else None
        for block in self.up_blocks if deep is None else self.up_blocks[-1:]:
            if block is self.up_blocks[-1] and deep is not None:
                x = deep
            elif block is self.up_blocks[-1] and deep_out is not None:
                deep_out.copy_(x)
            for resnet, transformer in _layers(block):
                x = torch.cat([x, skips.pop()], dim=1)
                x = self._run(resnet, x, embedding, indicator)
                x = self._run(transformer, x, contexts, indicator)[0] if transformer else x
            for upsampler in block.upsamplers or ():
                x = upsampler(x, skips[-1].shape[-2:])
        x = self.conv_out(self.conv_act(self.conv_norm_out(x))).unflatten(0, (batch, frames))
        if mid_features:
            return x, middle
        return UNetSpatioTemporalConditionOutput(sample=x) if return_dict else (x,)

    @property
    def deep_channels(self) -> int:
        """Channels of `deep`: those that the last level up gets from below, at the size of the latents."""
        return self.config.block_out_channels[:2][-1]

    def _run(self, layer, *inputs):
        """A layer's output; the layer runs again in the backward pass where gradient checkpointing is enabled."""
        if self._checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    def _waves(self, frames: int, like: Tensor) -> dict[int, Tensor]:
        """`Contexts.waves` of every width that a transformer has."""
        numbers = torch.arange(frames, device=like.device)
        blocks = (*self.down_blocks, self.mid_block, *self.up_blocks)
        waves = [each.time_proj for block in blocks for each in getattr(block, "attentions", ())]
        by_width = {wave.num_channels: wave for wave in waves}
        return {channels: wave(numbers).to(like.dtype) for channels, wave in by_width.items()}

    def _masks(self, face_mask: Tensor, height: int, width: int) -> dict[tuple[int, int], Tensor]:
        masks = {}
        for _ in self.down_blocks:
            mask = F.interpolate(face_mask, size=(height, width), mode="bicubic")
            masks[height, width] = rearrange(mask, "b 1 h w -> b 1 (h w) 1")
            height, width = (height + 1) // 2, (width + 1) // 2
        return masks


def _layers(block) -> Iterable[tuple[Any, Any]]:
    """(resnet, attention or None) of a down or an up block."""
    return zip_longest(block.resnets, getattr(block, "attentions", ()))


def unet_config_from_state_dict(state_dict: Mapping[str, Tensor]) -> dict:
    """The arguments of `DiceTalkUNet` that fit these tensors, read off their names and shapes.

    Attention heads leave no trace in the shapes; they are 64 wide, as in SVD, or a narrower level's whole width.

    Raises:
        KeyError: a tensor that every such UNet has is missing.
    """

    def shape(name):
        return tuple(state_dict[name].shape)

    def count(pattern):
        found = 0
        while any(key.startswith(pattern.format(found)) for key in state_dict):
            found += 1
        return found

    def has_attention(block):
        return any(key.startswith(f"{block}.attentions.") for key in state_dict)

    levels = range(count("down_blocks.{}."))
    channels = [shape(f"down_blocks.{i}.resnets.0.spatial_res_block.conv1.weight")[0] for i in levels]
    down = [has_attention(f"down_blocks.{i}") for i in levels]
    up = [has_attention(f"up_blocks.{i}") for i in levels]
    time_ids_dim = shape("add_embedding.linear_1.weight")[1]
    attention = "mid_block.attentions.0.transformer_blocks"
    return {
        "in_channels": shape("conv_in.weight")[1],
        "out_channels": shape("conv_out.weight")[0],
        "down_block_types": tuple("CrossAttn" * cross + "DownBlockSpatioTemporal" for cross in down),
        "up_block_types": tuple("CrossAttn" * cross + "UpBlockSpatioTemporal" for cross in up),
        "block_out_channels": tuple(channels),
        "addition_time_embed_dim": time_ids_dim // 3,
        "projection_class_embeddings_input_dim": time_ids_dim,
        "layers_per_block": count("down_blocks.0.resnets.{}."),
        "cross_attention_dim": shape(f"{attention}.0.attn2.to_k.weight")[1],
        "transformer_layers_per_block": count(attention + ".{}."),
        "num_attention_heads": tuple(max(1, width // HEAD_WIDTH) for width in channels),
    }
