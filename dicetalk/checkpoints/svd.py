"""Stable Video Diffusion's VAE and CLIP vision tower from a checkpoint's folder, in diffusers' layout, of any size, or
from ComfyUI's one file."""

import torch
from diffusers import AutoencoderKLTemporalDecoder
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ..errors import InputError
from .svd_xt import read_svd_part
from .tensors import read_tensors

VAE, TOWER = "vae", "image_encoder"
_KINDS = {VAE: AutoencoderKLTemporalDecoder, TOWER: CLIPVisionModelWithProjection}


def load_svd_part(folder, part, dtype):
    """The VAE or the tower.

    Args:
        folder: the checkpoint's `stable-video-diffusion-img2vid-xt`, or a file such as svd_xt.safetensors.
        part: VAE or TOWER.
        dtype: of the weights; for the tower "auto" is that of the file.

    Returns:
        The module, in evaluation mode.

    Raises:
        InputError: its file does not hold exactly its weights.
    """
    if folder.is_file():
        return _from_file(folder, part, dtype)
    # Without accelerate, which is not needed for so small a model, diffusers would advise to install it.
    # A configuration could name attention kernels, which transformers would fetch and run; an argument goes before it.
    options = {"low_cpu_mem_usage": False} if part == VAE else {"attn_implementation": "sdpa"}
    half = list((folder / part).glob("*.fp16.safetensors"))
    files = half or list((folder / part).glob("*.safetensors"))
    try:
        module, found = _KINDS[part].from_pretrained(
            folder,
            subfolder=part,
            variant="fp16" if half else None,
            torch_dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        problems = [f"{name} is missing" for name in found["missing_keys"]]
        problems += [f"{name} is unexpected" for name in found["unexpected_keys"]]
        problems += [f"{name} is misshapen" for name, *_ in found["mismatched_keys"]]
        problems += [f"{name} is not of floating point" for file in files for name in _whole_numbers(file)]
        # Older files hold this counter, which is no weight.
        problems = sorted(problem for problem in problems if "position_ids" not in problem)
    except Exception as error:  # diffusers and transformers raise many kinds for files that they cannot use
        problems = [" ".join(str(error).split())[:200]]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(
            f"{folder / part} cannot be read as Stable Video Diffusion's {part} "
            f"({'; '.join(problems[:3])}{more}): fetch it with `python -m dicetalk download --only svd`."
        )
    return module.eval()


def _from_file(file, part, dtype):
    """The same out of svd_xt.safetensors, as ComfyUI has it."""
    config, tensors = read_svd_part(file, part)
    with torch.device("meta"):
        if part == VAE:
            module = AutoencoderKLTemporalDecoder.from_config(config)
        else:
            module = CLIPVisionModelWithProjection(CLIPVisionConfig(**config, attn_implementation="sdpa"))
    expected = {name: tensor.shape for name, tensor in module.state_dict().items() if "position_ids" not in name}
    wrong = [*(expected.keys() ^ tensors.keys())]
    wrong += [name for name in expected.keys() & tensors.keys() if expected[name] != tensors[name].shape]
    wrong += [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if wrong:
        raise InputError(
            f"{file} does not hold Stable Video Diffusion's {part} ({', '.join(sorted(wrong)[:3])}): take the "
            "published svd_xt.safetensors, or fetch the parts with `python -m dicetalk download --only svd`."
        )
    if dtype != "auto":
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    module.load_state_dict(tensors, strict=False, assign=True)
    for buffer in [name for name, tensor in module.named_buffers() if tensor.is_meta]:  # counters of positions
        path, _, name = buffer.rpartition(".")
        owner = module.get_submodule(path)
        owner.register_buffer(name, torch.arange(getattr(owner, name).shape[-1])[None], persistent=False)
    return module.eval()


def _whole_numbers(file):
    """Names of the tensors in a safetensors file that are not of floating point."""
    return [name for name, tensor in read_tensors(file).items() if not tensor.is_floating_point()]
