"""Stable Video Diffusion's VAE in the precision that the published code computes in.

ComfyUI gives it bfloat16 on every card that has it. The published code encodes the portrait in float32 and decodes in
float16, which has eight times as fine steps. Weights that ComfyUI rounded to bfloat16 when it loaded them stay rounded,
so that part of the error is left: a test with random weights holds it to 0.7 of bfloat16's.
"""

import comfy.cli_args
import comfy.sd
import torch

from .svd import CheckpointVae


def in_precision(vae, dtype):
    """The VAE for `dtype`, with ComfyUI's memory management: a new one of the same weights, or itself where that fits.

    A precision that the user chose when starting ComfyUI (--bf16-vae) stays.
    """
    if getattr(vae, "vae_dtype", dtype) != torch.bfloat16 or comfy.cli_args.args.bf16_vae:
        return vae
    if isinstance(vae, CheckpointVae):
        return vae.of_dtype(dtype)
    return comfy.sd.VAE(sd=vae.get_sd(), device=vae.device, dtype=dtype)
