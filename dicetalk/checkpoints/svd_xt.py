"""Stable Video Diffusion as ComfyUI has it, in one file: its VAE and CLIP vision tower, for diffusers and transformers.

`svd_xt.safetensors` holds the VAE under the names of Stability AI's generative-models and the tower under those of
OpenCLIP. The UNet, most of its 9.6 GB, is not read. There is no quant_conv in it: the encoder gives the moments
themselves, as ComfyUI takes them, so that it is the identity here.
"""

import json
import re
from pathlib import Path

import torch

from ..errors import InputError
from ..files import require_space, written_beside
from .tensors import Unreadable, read_tensors

SVD_PARTS = ("vae", "image_encoder")
SVD_SIZE = "9.6 GB, of which the VAE and the CLIP vision tower, 1.5 GB, are used"

_VAE, _TOWER = "first_stage_model.", "conditioner.embedders.0.open_clip.model.visual."
_HEAD = 80  # channels of an attention head of ViT-H
# Names in the file → in diffusers and transformers; the first that fits, and groups keep their numbers.
_VAE_NAMES = (
    (r"(encoder|decoder)\.mid\.block_(\d)\.(.*)", lambda m: f"{m[1]}.mid_block.resnets.{int(m[2]) - 1}.{m[3]}"),
    (r"(encoder|decoder)\.mid\.attn_1\.norm\.(.*)", r"\1.mid_block.attentions.0.group_norm.\2"),
    (r"(encoder|decoder)\.mid\.attn_1\.([qkv])\.(.*)", r"\1.mid_block.attentions.0.to_\2.\3"),
    (r"(encoder|decoder)\.mid\.attn_1\.proj_out\.(.*)", r"\1.mid_block.attentions.0.to_out.0.\2"),
    (r"encoder\.down\.(\d)\.block\.(\d)\.(.*)", r"encoder.down_blocks.\1.resnets.\2.\3"),
    (r"encoder\.down\.(\d)\.downsample\.conv\.(.*)", r"encoder.down_blocks.\1.downsamplers.0.conv.\2"),
    (r"decoder\.up\.(\d)\.block\.(\d)\.(.*)", r"decoder.up_blocks.<\1>.resnets.\2.\3"),
    (r"decoder\.up\.(\d)\.upsample\.conv\.(.*)", r"decoder.up_blocks.<\1>.upsamplers.0.conv.\2"),
    (r"(encoder|decoder)\.norm_out\.(.*)", r"\1.conv_norm_out.\2"),
    (r"decoder\.conv_out\.time_mix_conv\.(.*)", r"decoder.time_conv_out.\1"),
    (r"(encoder|decoder)\.(conv_in|conv_out)\.(.*)", r"\1.\2.\3"),
)
_TEMPORAL = {"in_layers.0": "norm1", "in_layers.2": "conv1", "out_layers.0": "norm2", "out_layers.3": "conv2"}
_TOWER_NAMES = (
    (r"class_embedding", "vision_model.embeddings.class_embedding"),
    (r"conv1\.weight", "vision_model.embeddings.patch_embedding.weight"),
    (r"positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"ln_pre\.(.*)", r"vision_model.pre_layrnorm.\1"),  # transformers spells it so
    (r"ln_post\.(.*)", r"vision_model.post_layernorm.\1"),
    (r"proj", "visual_projection.weight"),
    (r"transformer\.resblocks\.(\d+)\.ln_(\d)\.(.*)", r"vision_model.encoder.layers.\1.layer_norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.*)", r"vision_model.encoder.layers.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.*)", r"vision_model.encoder.layers.\1.mlp.fc2.\2"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.*)", r"vision_model.encoder.layers.\1.self_attn.out_proj.\2"),
)
_FUSED = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")


def read_svd_part(file, part):
    """A part of Stable Video Diffusion out of its one file.

    Args:
        file: such as svd_xt.safetensors.
        part: "vae" or "image_encoder".

    Returns:
        Its configuration as a dict, as its config.json would have it, and its tensors by their names in
        `AutoencoderKLTemporalDecoder` or `CLIPVisionModelWithProjection`.

    Raises:
        InputError: the file cannot be read, or lacks the part.
    """
    prefix = _VAE if part == "vae" else _TOWER
    try:
        tensors = read_tensors(file)
    except Unreadable as problem:
        raise InputError(f"{file}, taken for Stable Video Diffusion, {problem}: {_remedy(file)}") from None
    own = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        return _vae(own) if part == "vae" else _tower(own)
    except (KeyError, ValueError, IndexError):
        what = "VAE with a temporal decoder" if part == "vae" else "CLIP vision tower"
        raise InputError(f"{file}, taken for Stable Video Diffusion, holds no {what} of its: {_remedy(file)}") from None


def write_svd_parts(file, folder, dtype=torch.float16, on_file=None):
    """Cut the VAE and the CLIP vision tower out of the one file, into a folder in diffusers' layout.

    Args:
        file: such as svd_xt.safetensors.
        folder: usually stable-video-diffusion-img2vid-xt in a checkpoint; files that are there already stay.
        dtype: of the weights; float16, as published for diffusers, needs 1.5 GB.
        on_file: called with (path, whether it was written).

    Raises:
        InputError: as `read_svd_part`, or the disk is full.
    """
    from safetensors.torch import save_file

    for part in SVD_PARTS:
        name = "diffusion_pytorch_model" if part == "vae" else "model"
        target = Path(folder) / part / f"{name}.fp16.safetensors"
        if target.is_file() and target.with_name("config.json").is_file():
            if on_file:
                on_file(target, False)
            continue
        config, tensors = read_svd_part(file, part)
        tensors = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
        target.parent.mkdir(parents=True, exist_ok=True)
        require_space(target.parent, sum(tensor.nbytes for tensor in tensors.values()))
        with written_beside(target) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt", "source": Path(file).name})
        with written_beside(target.with_name("config.json")) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if on_file:
            on_file(target, True)


def _vae(own):
    levels = 1 + max(int(name.split(".")[2]) for name in own if name.startswith("encoder.down."))
    channels = [own[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)]
    blocks = 1 + max(int(name.split(".")[4]) for name in own if name.startswith("encoder.down.0.block."))
    latent = own["decoder.conv_in.weight"].shape[1]
    own["decoder.conv_out.time_mix_conv.weight"]  # a KeyError in another model's VAE
    tensors = {}
    for name, tensor in own.items():
        if (new := _renamed(name, _VAE_NAMES)) is None:
            continue  # of the encoder of conditions, in older files
        new = re.sub(r"<(\d)>", lambda match: str(levels - 1 - int(match[1])), new)
        if ".resnets." in new:
            new = _of_block(new, new.startswith("decoder."))
        if ".attentions." in new and tensor.ndim == 4:
            tensor = tensor[:, :, 0, 0]
        tensors[new] = tensor
    moments = 2 * latent
    tensors["quant_conv.weight"] = torch.eye(moments)[:, :, None, None]
    tensors["quant_conv.bias"] = torch.zeros(moments)
    config = {
        "_class_name": "AutoencoderKLTemporalDecoder",
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "force_upcast": True,
        "in_channels": 3,
        "latent_channels": latent,
        "layers_per_block": blocks,
        "out_channels": 3,
        "sample_size": 768,
        "scaling_factor": 0.18215,
    }
    return config, tensors


def _of_block(name, temporal):
    """A residual block's tensor; the decoder's blocks have one in space and one in time."""
    block, number, rest = re.fullmatch(r"(.*\.resnets\.)(\d)\.(.*)", name).groups()
    rest = rest.replace("nin_shortcut", "conv_shortcut")
    if rest.startswith("time_stack."):
        layer, _, kind = rest.removeprefix("time_stack.").rpartition(".")
        rest = f"temporal_res_block.{_TEMPORAL[layer]}.{kind}"
    elif rest == "mix_factor":
        rest = "time_mixer.mix_factor"
    elif temporal:
        rest = f"spatial_res_block.{rest}"
    return f"{block}{number}.{rest}"


def _tower(own):
    hidden = own["ln_pre.weight"].shape[0]
    patch = own["conv1.weight"].shape[-1]
    side = round((own["positional_embedding"].shape[0] - 1) ** 0.5)
    layers = 1 + max(int(name.split(".")[2]) for name in own if name.startswith("transformer.resblocks."))
    tensors = {}
    for name, tensor in own.items():
        if fused := _FUSED.fullmatch(name):
            for kind, piece in zip("qkv", tensor.chunk(3)):
                tensors[f"vision_model.encoder.layers.{fused[1]}.self_attn.{kind}_proj.{fused[2]}"] = piece
        elif (new := _renamed(name, _TOWER_NAMES)) is not None:
            tensors[new] = tensor.T if name == "proj" else tensor
    config = {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_act": "gelu",
        "hidden_size": hidden,
        "image_size": side * patch,
        "intermediate_size": own["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "layer_norm_eps": 1e-5,
        "num_attention_heads": max(1, hidden // _HEAD),
        "num_channels": 3,
        "num_hidden_layers": layers,
        "patch_size": patch,
        "projection_dim": own["proj"].shape[1],
    }
    return config, tensors


def _renamed(name, table):
    for pattern, new in table:
        if match := re.fullmatch(pattern, name):
            return new(match) if callable(new) else match.expand(new)
    return None


def _remedy(file):
    return (
        f"take svd_xt.safetensors of stabilityai/stable-video-diffusion-img2vid-xt on Hugging Face ({SVD_SIZE}; an "
        f"account and your consent to its licence are needed), or move {Path(file).name} away and run `python -m "
        "dicetalk download --only svd`."
    )
