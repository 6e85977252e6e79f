"""One clip by several processes: they share out the windows of each step, and all have the same latents after it."""

import os
from typing import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .windows import joined


def join_processes() -> None:
    """Join the processes that `accelerate launch` or `torchrun` started, if one of them started this one.

    Raises:
        InputError: accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) < 2 or not torch.distributed.is_available():
        return
    try:
        from accelerate import PartialState
    except ImportError:
        raise InputError("Several processes for one clip need accelerate: pip install accelerate.") from None
    PartialState()  # it chooses NCCL or gloo, and each process's GPU


def process() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are."""
    group = torch.distributed
    if group.is_available() and group.is_initialized():
        return group.get_rank(), group.get_world_size()
    return 0, 1


def joined_by_all(
    windows: Sequence[list[int]], latents: Tensor, predict: Callable[[list[int]], Sequence[Tensor]]
) -> Tensor:
    """The prediction for a clip, as `joined` gives it, where each process predicts some of the windows.

    At most two windows share a frame in the published plan, so that the sum is the same in any order: bit for bit that
    of one process. It is one all-reduce of (N + window) × (4 × h × w + 1) float32.

    Args:
        windows, latents, predict: see `joined`; equal in all processes. `predict` gives one prediction.
    """
    rank, processes = process()
    if processes == 1:
        return joined(windows, latents, predict)[0]
    total = torch.zeros_like(latents)
    count = latents.new_zeros(len(latents), 1, 1, 1)
    for frames in windows[rank::processes]:
        total[frames] += predict(frames)[0]
        count[frames] += 1
    both = torch.cat([total.flatten(1), count.flatten(1)], dim=1)
    torch.distributed.all_reduce(both)
    total, count = both[:, :-1].reshape(latents.shape), both[:, -1:].reshape(count.shape)
    return total / count.clamp(min=1)
