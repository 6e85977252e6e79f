"""Which device to compute on, and in which precision, from what a user wrote."""

import torch

from ..errors import InputError

DTYPES = ("float32", "float16", "bfloat16")


def choose_device(name=None):
    """The torch.device of that name, known to work; CUDA if there is one, else the CPU, when `name` is None."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises several kinds, by backend, for a device that is not there
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--device {name} cannot be used here ({reason}): use cpu, or a device that is there."
        ) from error
    return device


def choose_dtype(name=None, device=None):
    """The torch.dtype of that name, one of `DTYPES`; float16 on CUDA and float32 elsewhere when `name` is None."""
    if name is None:
        name = "float16" if device is not None and torch.device(device).type == "cuda" else "float32"
    return getattr(torch, name)
