"""The noise that the published script draws, to compare a video with one that it made."""

import torch
from torch import Tensor

from ..errors import InputError

PUBLISHED_SEED = 72589


def published_noise(shape: tuple[int, ...], seed: int = PUBLISHED_SEED, device="cuda") -> Tensor:
    """What the published script starts from: drawn on the GPU, in half precision, as one batch of a video.

    CUDA's generator gives other numbers for another number of frames, so the speech must be cut to whole frames (80 ms)
    for a comparison, as the published script does. Other devices give other numbers for the same seed.

    Args:
        shape: (N + 25, 4, h, w), N frames that are kept.
        seed: 72589 in the published script.
        device: a CUDA device.

    Returns:
        (N + 25, 4, h, w) float32 on that device, for `noise` of `DiceTalkPipeline`.

    Raises:
        InputError: the device is none of CUDA's, or there is none.
    """
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        raise InputError(
            "The published noise is drawn on an NVIDIA GPU, and other devices draw other numbers: use one, or the "
            "usual noise."
        )
    return drawn(shape, seed, device)


def drawn(shape, seed, device):
    """The numbers of diffusers' `randn_tensor` for one video in half precision, as float32."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn((1, *shape), generator=generator, device=device, dtype=torch.float16)[0].float()
