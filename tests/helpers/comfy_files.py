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
    shapes, random = _clip_vision()
    _write(path, {name: _random(name, shapes[name]) for name in random}, shapes)


def write_svd_checkpoint(path):
    """svd_xt.safetensors: the same VAE and the same CLIP vision tower under the names that they have there.

    Of the UNet, whose weights nothing here looks at, it holds the tensors by which ComfyUI recognises it, all zero.
    """
    vae = _encoder() | _decoder()
    shapes = {f"first_stage_model.{name}": shape for name, shape in vae.items()}
    arrays = {f"first_stage_model.{name}": _random(name, shape) for name, shape in vae.items()}
    tower, random = _clip_vision()
    prefix = "conditioner.embedders.0.open_clip.model.visual."
    for name, parts in _open_clip_names(tower).items():
        shape = tower[parts[0]]
        shapes[prefix + name] = shape[::-1] if name == "proj" else (len(parts) * shape[0], *shape[1:])
        if parts[0] in random:
            array = np.concatenate([_random(part, tower[part]) for part in parts])
            arrays[prefix + name] = array.T if name == "proj" else array
    shapes |= {f"model.diffusion_model.{name}": shape for name, shape in _marks_of_svd_unet().items()}
    _write(path, arrays, shapes)


def write_rife(path, width=8, head=4):
    """A frame interpolation model of RIFE's kind, a few channels wide."""
    shapes = _conv("encode.cnn0", 3, 16, 3, 3) | _conv("encode.cnn1", 16, 16, 3, 3) | _conv("encode.cnn2", 16, 16, 3, 3)
    shapes |= {"encode.cnn3.weight": (16, head, 4, 4), "encode.cnn3.bias": (head,)}
    for block in range(5):
        name, inputs = f"blocks.{block}", 7 + 2 * head if block == 0 else 20 + 2 * head
        shapes |= _conv(f"{name}.conv0.0.0", inputs, width // 2, 3, 3)
        shapes |= _conv(f"{name}.conv0.1.0", width // 2, width, 3, 3)
        for layer in range(8):
            shapes |= _conv(f"{name}.convblock.{layer}.conv", width, width, 3, 3)
            shapes[f"{name}.convblock.{layer}.beta"] = (1, width, 1, 1)
        shapes |= {f"{name}.lastconv.0.weight": (width, 52, 4, 4), f"{name}.lastconv.0.bias": (52,)}
    _write(path, {name: _random(name, shape) for name, shape in shapes.items()}, shapes)


def write_upscaler(path, width=8):
    """An upscaling model of Real-ESRGAN's kind that enlarges by 4, with one block, a few channels wide."""
    growth = 32  # which the kind has, whatever the file says
    shapes = _conv("conv_first", 3, width, 3, 3) | _conv("conv_last", width, 3, 3, 3)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        shapes |= _conv(name, width, width, 3, 3)
    for part in (1, 2, 3):
        for layer in range(5):
            outputs = width if layer == 4 else growth
            shapes |= _conv(f"body.0.rdb{part}.conv{layer + 1}", width + layer * growth, outputs, 3, 3)
    _write(path, {name: _random(name, shape) for name, shape in shapes.items()}, shapes)


def write_face_landmarker(path):
    """MediaPipe's face models as ComfyUI's file holds them, of their real sizes; ComfyUI must be importable."""
    import torch
    from comfy_extras.mediapipe.face_landmarker import FaceLandmarker
    from safetensors.torch import save_file

    tensors = {
        "canonical_vertices": torch.randn(468, 3, generator=torch.Generator().manual_seed(0)),
        "procrustes_indices": torch.arange(0, 468, 13),
        "procrustes_weights": torch.ones(36),
    }
    for part in ("face_oval", "left_eye", "right_eye", "left_eyebrow", "right_eyebrow", "lips", "irises", "nose"):
        tensors[f"topology.{part}"] = torch.tensor([[0, 1], [1, 2], [2, 0]], dtype=torch.int32)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        for variant in ("short", "full"):
            for name, tensor in FaceLandmarker(detector_variant=variant).state_dict().items():
                tensors[name.replace("detector.", f"detector_{variant}.", 1)] = tensor.contiguous()
    save_file(tensors, path)


def _clip_vision(width=1280, layers=32):
    """Shapes by the names of transformers, and the names of those that are random."""
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
    return shapes, random


def _open_clip_names(shapes):
    """OpenCLIP's name of each tensor of the tower → the names that transformers has for its parts, one or three."""
    parts = {
        "vision_model.embeddings.class_embedding": "class_embedding",
        "vision_model.embeddings.patch_embedding": "conv1",
        "vision_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.pre_layrnorm": "ln_pre",
        "vision_model.post_layernorm": "ln_post",
        "visual_projection.weight": "proj",
        "vision_model.encoder.layers": "transformer.resblocks",
        "layer_norm": "ln_",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
        "self_attn.q_proj.": "attn.in_proj_",
        "self_attn.k_proj.": "attn.in_proj_",
        "self_attn.v_proj.": "attn.in_proj_",
    }
    names = {}
    for name in shapes:
        other = name
        for old, new in parts.items():
            other = other.replace(old, new)
        names.setdefault(other, []).append(name)
    return names


def _marks_of_svd_unet():
    shapes = {"label_emb.0.0.weight": (1280, 768), "out.2.weight": (4, 320, 3, 3)}
    shapes["input_blocks.0.0.weight"] = (320, 8, 3, 3)
    widths, current, skips = (320, 640, 1280, 1280), 320, [320]
    for level, width in enumerate(widths):
        for number in (3 * level + 1, 3 * level + 2):
            shapes |= _marks_of_block(f"input_blocks.{number}", current, width, attends=level < 3)
            current = width
            skips.append(width)
        if level < 3:
            shapes[f"input_blocks.{3 * level + 3}.0.op.weight"] = (width, width, 3, 3)
            skips.append(width)
    for number in range(12):
        level = 3 - number // 3
        shapes |= _marks_of_block(f"output_blocks.{number}", current + skips.pop(), widths[level], attends=level < 3)
        current = widths[level]
    return shapes | _marks_of_transformer("middle_block.1", 1280)


def _marks_of_block(name, inputs, width, attends):
    shapes = {f"{name}.0.in_layers.0.weight": (inputs,), f"{name}.0.out_layers.3.weight": (width, width, 3, 3)}
    return shapes | (_marks_of_transformer(f"{name}.1", width) if attends else {})


def _marks_of_transformer(name, width):
    return {
        f"{name}.proj_in.weight": (width, width),
        f"{name}.transformer_blocks.0.attn2.to_k.weight": (width, 1024),
        f"{name}.time_stack.0.attn1.to_q.weight": (width, width),
        f"{name}.time_stack.0.attn2.to_q.weight": (width, width),
    }


def _random(name, shape):
    # The quickest of NumPy's generators: a server's files hold 140 million numbers.
    values = np.random.Generator(np.random.SFC64(zlib.crc32(name.encode()))).standard_normal(shape, np.float32)
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
