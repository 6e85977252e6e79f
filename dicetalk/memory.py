"""Devices: which one to compute on, how much memory is free, and what is said when it is not enough."""

import math

import torch

from .emotion.options import FPS
from .errors import InputError, reason

_PHRASES = ("out of memory", "can't allocate memory", "not enough memory")


def choose_device(name=None, field="device"):
    """The torch.device of that name, known to work; CUDA if there is one, else the CPU, when `name` is None.

    Raises:
        InputError: it cannot be used; `field` is how the message calls the setting.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises several kinds, by backend, for a device that is not there
        raise InputError(
            f"{field} {name} cannot be used here ({reason(error)}): use cpu, or a device that is there."
        ) from error
    return device


def choose_dtype(name=None, device=None):
    """The torch.dtype of that name; float16 on CUDA and float32 elsewhere when `name` is None."""
    if name is None:
        name = "float16" if device is not None and torch.device(device).type == "cuda" else "float32"
    return getattr(torch, name)


def is_out_of_memory(error) -> bool:
    """Whether an exception says that memory ran out; PyTorch's backends have no common class for that."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _PHRASES)


def free_memory(device) -> int | None:
    """Bytes that the device can still give, None where that cannot be asked."""
    device = torch.device(device)
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for later
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "cpu":
        import psutil

        return psutil.virtual_memory().available
    return None


def fits(needed, free) -> bool:
    """Whether memory is enough, a tenth being left to everything else; also where it is not known what is free."""
    return free is None or needed <= 0.9 * free


def require_memory(what, frames, each, free, shorter) -> None:
    """InputError unless there is enough memory for a clip.

    Without it a system ends the whole process, with no word.

    Args:
        what: the input that is so long, in the user's words.
        frames: of the clip.
        each: bytes that stay for each frame of it.
        free: bytes that are free, None where that is not known.
        shorter: makes the advice for a number of seconds that fits.
    """
    if fits(frames * each, free):
        return
    seconds = math.floor(0.9 * max(free, 0) / each / FPS)
    raise InputError(
        f"{what} lasts {frames / FPS:.0f} s, which needs {frames * each / 1e9:.1f} GB of memory, and "
        f"{max(free, 0) / 1e9:.1f} GB are free: close what else uses it, or "
        f"{shorter(seconds) if seconds else 'use a machine with more'}."
    )


def gathered(pieces, count) -> torch.Tensor:
    """Join tensors along their first axis, `count` rows in all, while they come: they are never held twice."""
    whole, filled = None, 0
    for piece in pieces:
        if whole is None:
            whole = piece.new_empty(count, *piece.shape[1:])
        whole[filled : filled + len(piece)] = piece
        filled += len(piece)
    return whole


def release(device) -> None:
    """Give back what PyTorch holds on to for later."""
    backend = getattr(torch, torch.device(device).type, None)
    if backend is not None and hasattr(backend, "empty_cache"):
        backend.empty_cache()
