"""Modules of plain torch layers, rebuilt from ComfyUI's operations so that ComfyUI can offload and cast each layer."""

import functools

from torch import nn

from ...dicetalk.model.frames import OverFrames, TemporalConvolution

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def use_operations(module, operations, device=None, dtype=None, keep=()):
    """Replace every layer below `module` that has a ComfyUI operation; its new weights are not initialised.

    Args:
        module: changed in place; its weights may be on the meta device.
        operations: a class such as `comfy.ops.manual_cast`.
        device, dtype: of the new weights.
        keep: layer classes that stay as they are.
    """
    for name, child in module.named_children():
        layer = None if isinstance(child, keep) else _operation(child, operations, device, dtype)
        if layer is None:
            use_operations(child, operations, device, dtype, keep)
        else:
            setattr(module, name, layer)


def _operation(layer, operations, device, dtype):
    placed = {"device": device, "dtype": dtype}
    kind = type(layer)
    if kind is TemporalConvolution:
        kind = nn.Conv3d
    if kind is nn.Linear:
        return operations.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, **placed)
    if kind in _CONVOLUTIONS:
        made = getattr(operations, kind.__name__)(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
            **placed,
        )
        if isinstance(layer, TemporalConvolution):
            made.__class__ = _over_frames(type(made))
        return made
    if kind is nn.GroupNorm:
        return operations.GroupNorm(layer.num_groups, layer.num_channels, eps=layer.eps, affine=layer.affine, **placed)
    if kind is nn.LayerNorm:
        return operations.LayerNorm(
            layer.normalized_shape,
            eps=layer.eps,
            elementwise_affine=layer.elementwise_affine,
            bias=layer.bias is not None,
            **placed,
        )
    if kind is nn.Embedding:
        return operations.Embedding(layer.num_embeddings, layer.embedding_dim, **placed)
    return None


@functools.cache
def _over_frames(convolution):
    """ComfyUI's class of 3D convolutions, computed in two dimensions."""
    return type(f"OverFrames{convolution.__name__}", (OverFrames, convolution), {})
