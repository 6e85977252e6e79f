"""Model files with seeded random weights, in the formats and under the names that ComfyUI's own loaders accept.

ComfyUI takes a model's configuration from the names in the file, so these have the sizes of the released models.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np

MIDDLE = 512  # channels of Stable Diffusion's VAE at its smallest resolution
VAE_CHANNELS = (128, 256, 512, 512)


def write_svd_vae(path):
    """The VAE of Stable Video Diffusion, with its temporal decoder: 98 M parameters in half precision."""
    shapes = _encoder() | _decoder()
    _write(path, {name: _random(name, shape) for name, shape in shapes.items()}, shapes)


def write_small_vae(path):
    """A small distilled VAE (TAESD) for the same four latent channels, 2.4 M parameters: quick on a CPU."""
    shapes = _taesd("taesd_encoder", first=3, last=4, stages=(1, 3, 3, 3), stride_after=True)
    shapes |= _taesd("taesd_decoder", first=4, last=3, stages=(3, 3, 3, 1), stride_after=False)
    arrays = {name: _random(name, shape) for name, shape in shapes.items()}
    arrays |= {"vae_scale": np.float32(0.18215), "vae_shift": np.float32(0)}
    _write(path, arrays, shapes | {"vae_scale": (), "vae_shift": ()})


def write_clip_vision(path):
    """The CLIP vision tower of Stable Video Diffusion (ViT-H/14, 631 M parameters, 1024-wide embedding).

    The first and the last layer are random and the others zero, which leaves what comes in unchanged: their part of
    the file is a hole that takes no space on the disk and no time to write.
    """
    width, layers = 1280, 32
    shapes = {
        "vision_model.embeddings.class_embedding": (width,),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, 14, 14),
        "vision_model.embeddings.position_embedding.weight": (257, width),
        **_affine("vision_model.pre_layrnorm", width),
        **_affine("vision_model.post_layernorm", width),
        "visual_projection.weight": (1024, width),
    }
    random = list(shapes)
    for layer in range(layers):
        name = f"vision_model.encoder.layers.{layer}"
        parts = _affine(f"{name}.layer_norm1", width) | _affine(f"{name}.layer_norm2", width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            parts |= _linear(f"{name}.self_attn.{projection}", width, width)
        parts |= _linear(f"{name}.mlp.fc1", width, 4 * width) | _linear(f"{name}.mlp.fc2", 4 * width, width)
        if layer in (0, layers - 1):
            random += parts
        shapes |= parts
    _write(path, {name: _random(name, shapes[name]) for name in random}, shapes)


def _random(name, shape):
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if "norm" in name and name.endswith("weight") and len(shape) == 1:
        return 1 + 0.1 * values
    if len(shape) <= 1:
        return 0.02 * values
    return values / math.sqrt(math.prod(shape[1:]))


def _write(path, arrays, shapes):
    """A safetensors file in half precision; tensors of `shapes` that are not in `arrays` are zero, left as holes."""
    header, offset = {}, 0
    for name in sorted(shapes, key=lambda name: name not in arrays):
        end = offset + 2 * math.prod(shapes[name])
        header[name] = {"dtype": "F16", "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(Path(path), "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in header:
            if name in arrays:
                file.write(arrays[name].astype("<f2").tobytes())
        file.truncate(8 + len(text) + offset)


def _linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _affine(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _conv(name, inputs, outputs, *kernel):
    return {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}


def _block(name, inputs, outputs, temporal=False):
    shapes = _affine(f"{name}.norm1", inputs) | _conv(f"{name}.conv1", inputs, outputs, 3, 3)
    shapes |= _affine(f"{name}.norm2", outputs) | _conv(f"{name}.conv2", outputs, outputs, 3, 3)
    if inputs != outputs:
        shapes |= _conv(f"{name}.nin_shortcut", inputs, outputs, 1, 1)
    if temporal:
        for part, conv in (("in_layers", 2), ("out_layers", 3)):
            shapes |= _affine(f"{name}.time_stack.{part}.0", outputs)
            shapes |= _conv(f"{name}.time_stack.{part}.{conv}", outputs, outputs, 3, 1, 1)
        shapes[f"{name}.mix_factor"] = (1,)
    return shapes


def _middle(name, temporal=False):
    shapes = _block(f"{name}.block_1", MIDDLE, MIDDLE, temporal) | _block(f"{name}.block_2", MIDDLE, MIDDLE, temporal)
    shapes |= _affine(f"{name}.attn_1.norm", MIDDLE)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _conv(f"{name}.attn_1.{part}", MIDDLE, MIDDLE, 1, 1)
    return shapes


def _encoder():
    shapes = _conv("encoder.conv_in", 3, VAE_CHANNELS[0], 3, 3) | _middle("encoder.mid")
    channels = VAE_CHANNELS[0]
    for level, outputs in enumerate(VAE_CHANNELS):
        for block in range(2):
            shapes |= _block(f"encoder.down.{level}.block.{block}", channels, outputs)
            channels = outputs
        if level < 3:
            shapes |= _conv(f"encoder.down.{level}.downsample.conv", channels, channels, 3, 3)
    return shapes | _affine("encoder.norm_out", MIDDLE) | _conv("encoder.conv_out", MIDDLE, 8, 3, 3)


def _decoder():
    shapes = _conv("decoder.conv_in", 4, MIDDLE, 3, 3) | _middle("decoder.mid", temporal=True)
    channels = MIDDLE
    for level in reversed(range(4)):
        for block in range(3):
            shapes |= _block(f"decoder.up.{level}.block.{block}", channels, VAE_CHANNELS[level], temporal=True)
            channels = VAE_CHANNELS[level]
        if level:
            shapes |= _conv(f"decoder.up.{level}.upsample.conv", channels, channels, 3, 3)
    shapes |= _affine("decoder.norm_out", channels) | _conv("decoder.conv_out", channels, 3, 3, 3)
    return shapes | _conv("decoder.conv_out.time_mix_conv", 3, 3, 3, 1, 1)


def _taesd(name, first, last, stages, stride_after):
    """TAESD's one list of layers; a resolution's blocks come after its convolution without bias, or before it."""
    width, layer = 64, 0 if stride_after else 1
    shapes = _conv(f"{name}.{layer}", first, width, 3, 3)
    layer += 1 if stride_after else 2
    for stage, blocks in enumerate(stages):
        if stage:
            shapes[f"{name}.{layer}.weight"] = (width, width, 3, 3)
            layer += 1
        for _ in range(blocks):
            for conv in (0, 2, 4):
                shapes |= _conv(f"{name}.{layer}.conv.{conv}", width, width, 3, 3)
            layer += 1
        if not stride_after and stage < len(stages) - 1:
            layer += 1  # an upsampling without weights
    return shapes | _conv(f"{name}.{layer}", width, last, 3, 3)
