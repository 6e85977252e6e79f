"""One clip by several processes: they share out the windows of each step, and all have the same latents after it."""

import os
import time
from typing import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .shares import shared_out
from .windows import joined


class Traffic:
    """What a clip cost between processes, as this one saw it.

    Attributes:
        waited: seconds until all others had come as far.
        seconds: in which data went from one to another.
        size: bytes that this process gave.
        begun: when counting began, by `time.monotonic`.
    """

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Count from here on."""
        self.waited = self.seconds = 0.0
        self.size = 0
        self.begun = time.monotonic()

    def text(self) -> str:
        """The share of the time since the beginning, in one line."""
        total = time.monotonic() - self.begun
        return (
            f"{process()[1]} processes: communication took {self.seconds:.2f} s of {total:.1f} s "
            f"({self.seconds / total:.1%}) for {self.size / 1e6:.1f} MB, waiting for other processes {self.waited:.2f} "
            f"s ({self.waited / total:.1%})."
        )


traffic = Traffic()


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


def predicted_by_all(
    windows: Sequence[list[int]],
    branches: Sequence[str],
    latents: Tensor,
    predict: Callable[[list[int], Sequence[str]], dict[str, Tensor]],
    guided: Callable[[dict[str, Tensor]], Tensor],
    several: int = 1,
) -> Tensor:
    """The guided prediction for a clip, where each process predicts some windows, or branches of a window.

    At most two windows share a frame in the published plan, so that the sum is the same in any order: bit for bit that
    of one process, where all branches of a window are one batch in both. Where a window's branches are shared out
    (`dicetalk.sampling.shares`), its batches are smaller, which changes rounding. It is one all-reduce of
    (N + window) × (4 × h × w + 1) float32, and of 4 × h × w for each frame and branch of the windows that are shared.

    Args:
        windows: of one step, as `joined` takes them; equal in all processes, as are branches and latents.
        branches: that have a part in the guided prediction.
        latents: (N + window, 4, h, w) of the clip.
        predict: gives each of some branches' prediction (frames, 4, h, w) for a window.
        guided: makes the guided prediction of all branches'.
        several: how many predictions it makes, one after the other on channels.
    """
    rank, processes = process()
    like = latents.repeat(1, several, 1, 1) if several > 1 else latents
    if processes == 1:
        return joined(windows, like, lambda frames: [guided(predict(frames, branches))])[0]
    shares = shared_out(len(windows), branches, processes)
    split = sorted({part.window for share in shares for part in share if len(part.branches) < len(branches)})
    total = torch.zeros_like(like)
    count = latents.new_zeros(len(latents), 1, 1, 1)
    apart = latents.new_zeros(len(split), len(branches), *latents[windows[0]].shape)

    def add(frames, prediction):
        total[frames] += prediction
        count[frames] += 1

    for part in shares[rank]:
        frames = windows[part.window]
        predictions = predict(frames, part.branches)
        if part.window in split:
            for branch, prediction in predictions.items():
                apart[split.index(part.window), branches.index(branch)] = prediction
        else:
            add(frames, guided(predictions))
    sizes = total.numel(), count.numel(), apart.numel()
    everything = _summed(torch.cat([total.flatten(), count.flatten(), apart.flatten()]))
    sums, counts, parts = everything.split(sizes)
    total, count, apart = sums.reshape(total.shape), counts.reshape(count.shape), parts.reshape(apart.shape)
    for window, predictions in zip(split, apart):
        add(windows[window], guided(dict(zip(branches, predictions))))
    return total / count.clamp(min=1)


def _summed(tensor):
    """The sum of all processes' tensors; counts what it took."""
    begun = time.monotonic()
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)  # what was computed until here is no communication
        begun = time.monotonic()
    torch.distributed.barrier()
    met = time.monotonic()
    torch.distributed.all_reduce(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    traffic.waited += met - begun
    traffic.seconds += time.monotonic() - met
    traffic.size += tensor.nbytes
    return tensor


def least_of_all(value: int | None) -> int | None:
    """The least of all processes' values; None where one has none."""
    values: list = [None] * process()[1]
    torch.distributed.all_gather_object(values, value, torch.distributed.new_group(backend="gloo"))
    return None if None in values else min(values)


def decoded_by_all(
    chunks: Sequence[tuple[int, int]], decode: Callable[[int, int], Tensor], shape: Sequence[int]
) -> Iterator[Tensor]:
    """The frames of a clip, for the first process; each process decodes every so many-th chunk and sends it there.

    A process holds one chunk that it has decoded until the first one takes it.

    Args:
        chunks: (start, stop) of each, equal in all processes.
        decode: makes the frames (stop - start, *shape) of a chunk, float32 on the CPU.
        shape: of a frame.

    Yields:
        Each chunk's frames in order, in the first process. In others nothing, and the iteration ends when they have
        sent all of theirs.

    Raises:
        InputError: another process could not decode its chunk.
    """
    rank, processes = process()
    group = torch.distributed.new_group(backend="gloo")  # frames are on the CPU, whatever the latents are on
    for number, (start, stop) in enumerate(chunks):
        owner = number % processes
        if owner == 0 and rank == 0:
            yield decode(start, stop)
        elif owner == rank:
            _send(group, lambda start=start, stop=stop: decode(start, stop))
        elif rank == 0:
            yield _received(group, owner, (stop - start, *shape))


def _send(group, decode):
    ready = torch.ones(1)
    try:
        frames = decode().contiguous()
    except BaseException:
        torch.distributed.send(torch.zeros(1), 0, group)
        raise
    torch.distributed.send(ready, 0, group)
    torch.distributed.send(frames, 0, group)
    traffic.size += frames.nbytes


def _received(group, owner, shape):
    begun = time.monotonic()
    ready, frames = torch.zeros(1), torch.empty(shape)
    torch.distributed.recv(ready, owner, group)
    if not ready:
        raise InputError(f"Process {owner} could not decode its frames, and says why in its own message.")
    met = time.monotonic()
    torch.distributed.recv(frames, owner, group)
    traffic.waited += met - begun
    traffic.seconds += time.monotonic() - met
    return frames
