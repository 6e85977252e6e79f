"""Which frames are denoised together: the sliding windows of every step, and how their predictions are joined."""

from typing import Callable, Sequence

import torch
from torch import Tensor

WINDOW = 25
SHIFT = 7


def windows(total: int, step: int, window: int = WINDOW, overlap: int = 0, shift: int = SHIFT) -> list[list[int]]:
    """The windows of one step, as frame indices in 0..total-1.

    Windows start every `window - overlap` frames; the whole row of them moves left by `shift` frames a step
    (modulo the window's length), and what leaves on one side comes back on the other.

    Args:
        total: number of frames sampled, the extra window included; at least `window`.
        step: index of the sampling step, from 0.
    """
    offset = step * shift % window
    return [[(start - offset + i) % total for i in range(window)] for start in range(0, total, window - overlap)]


def window_plan(
    num_frames: int, steps: int, window: int = WINDOW, overlap: int = 0, shift: int = SHIFT
) -> list[list[list[int]]]:
    """The windows to denoise at each step: all whose result reaches one of the first `num_frames` frames.

    `num_frames + window` frames are sampled; the last `window` are dropped, so that near the end some windows touch
    nothing that is kept. A frame depends on another only through a window that holds both, which makes leaving those
    windows out exact for samplers that call the model once a step, at its first sigma (Euler). Others need all.

    Args:
        num_frames: frames that are kept.
        steps: number of sampling steps.

    Returns:
        For each step, its windows as in `windows`.
    """
    plan = [windows(num_frames + window, step, window, overlap, shift) for step in range(steps)]
    needed = set(range(num_frames))
    for step in reversed(range(steps)):
        plan[step] = [frames for frames in plan[step] if needed.intersection(frames)]
        needed = needed.union(*plan[step])
    return plan


def plan_with_smaller(
    num_frames: int, steps: int, size: int, window: int = WINDOW, overlap: int = 0, shift: int = SHIFT
) -> list[list[list[int]]]:
    """A plan that one of another `size` can follow at any step: all windows, of `size` frames each.

    Args:
        num_frames: frames that are kept; `window` more are sampled.
        steps: number of sampling steps.
        size: frames of a window, at most `window`; then the overlap is at most half of it.
    """
    overlap = overlap if size == window else min(overlap, size // 2)
    return [windows(num_frames + window, step, size, overlap, shift) for step in range(steps)]


def clamped_windows(
    num_frames: int, step: int, window: int = WINDOW, overlap: int = 0, shift: int = SHIFT
) -> list[list[int]]:
    """The windows of one step without an extra window behind the clip: cut off at its ends, and never around them.

    Each frame is computed once where the published plan, with `num_frames + window` of them, computes some in vain; so
    that this changes the result, a short clip's most. A window that is cut to less than a third shares its frames
    evenly with its neighbour, because few frames say little about motion. A clip of at most one window is one.

    Args:
        num_frames: frames of the clip, all of them kept.
        step, window, overlap, shift: as in `windows`.

    Returns:
        Windows of at most `window` frames, in order.
    """
    if num_frames <= window:
        return [list(range(num_frames))]
    offset = step * shift % window
    starts = range(-offset, num_frames, window - overlap)
    ends = [(max(start, 0), min(start + window, num_frames)) for start in starts if start + window > 0]
    ends = [pair for i, pair in enumerate(ends) if i == 0 or pair[1] > ends[i - 1][1]]
    ends = [pair for i, pair in enumerate(ends) if i + 1 == len(ends) or pair[0] < ends[i + 1][0]]
    for first in (0, len(ends) - 2):
        (start, end), (next_start, next_end) = ends[first : first + 2]
        if 3 * min(end - start, next_end - next_start) < window:
            shared = end - next_start
            middle = (start + next_end + shared) // 2
            ends[first : first + 2] = (start, middle), (middle - shared, next_end)
    return [list(range(start, end)) for start, end in ends]


def clamped_plan(
    num_frames: int, steps: int, window: int = WINDOW, overlap: int = 0, shift: int = SHIFT
) -> list[list[list[int]]]:
    """For each step, its windows as in `clamped_windows`."""
    return [clamped_windows(num_frames, step, window, overlap, shift) for step in range(steps)]


def joined(
    windows: Sequence[list[int]], latents: Tensor, predict: Callable[[list[int]], Sequence[Tensor]]
) -> list[Tensor]:
    """The predictions for a clip from those for its windows; where windows overlap, their mean; elsewhere zero.

    Args:
        windows: of one step, at least one.
        latents: (N + window, 4, h, w) of the clip, whose shape, type and device the predictions get.
        predict: called with each window's frames; gives one or more predictions (frames, 4, h, w), always as many.
    """
    sums: list[Tensor] = []
    count = latents.new_zeros(len(latents), 1, 1, 1)
    for frames in windows:
        parts = predict(frames)
        sums = sums or [torch.zeros_like(latents) for _ in parts]
        for total, part in zip(sums, parts, strict=True):
            total[frames] += part
        count[frames] += 1
    return [total.div_(count.clamp(min=1)) for total in sums]
