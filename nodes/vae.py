"""Stable Video Diffusion's VAE in the precision that the published code computes in.

ComfyUI gives it bfloat16 on every card that has it. The published code encodes the portrait in float32 and decodes in
float16, which loses a tenth as much. Measured on a VAE of random weights (CPU, against float32): the portrait's latent
was off by 1.5 % in bfloat16, by 0.8 % in float32 on weights that had been rounded to bfloat16, and by 0.2 % in float16;
frames by 1.4 % in bfloat16, by 0.7 % in float16 on rounded weights, and by 0.2 % in float16. With dynamic VRAM ComfyUI
keeps the file's weights, which are not rounded then.
"""

import comfy.cli_args
import comfy.sd
import torch


def in_precision(vae, dtype):
    """The VAE for `dtype`, with ComfyUI's memory management: a new one of the same weights, or itself where that fits.

    A precision that the user chose when starting ComfyUI (--bf16-vae) stays.
    """
    if getattr(vae, "vae_dtype", dtype) != torch.bfloat16 or comfy.cli_args.args.bf16_vae:
        return vae
    return comfy.sd.VAE(sd=vae.get_sd(), device=vae.device, dtype=dtype)
