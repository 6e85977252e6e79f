"""What one step computed and later ones use again, kept for each frame of the clip, since the windows move."""

import threading
from typing import Any, Callable, Sequence

import torch
from torch import Tensor

from .guidance import BRANCHES
from .speed import whole_step


class GuidanceReuse:
    """What guidance adds, kept from step to step for each frame of the clip, so that the windows may move.

    U + r (R − U) + e (C − R) is C + (r − 1)(R − U) + (e − 1)(C − R). The differences change slowly from step to step
    (FasterCache, arXiv 2410.19355), so that at steps in between only C is computed and what was added to it last is
    added again. Kept is the sum, in v, whose size depends less on sigma than that of clean latents does.

    Args:
        every: of how many steps one computes all branches; 1: every step, and nothing is kept.

    Attributes:
        added: (frames of the clip, 4, h, w), None before the first step that guides.
    """

    def __init__(self, every: int):
        self.every, self.added = every, None

    def branches(self, step: int, branches: Sequence[str]) -> Sequence[str]:
        """Those out of the `branches` that guidance needs which this step computes: all, or the last alone."""
        return branches if self.added is None or whole_step(step, self.every) else branches[-1:]

    def keeps(self, branches: Sequence[str]) -> bool:
        """Whether a step that computes these branches leaves something to keep."""
        return self.every > 1 and len(branches) > 1


class DeepCache:
    """The features that the UNet's inner levels gave, for each branch and frame of the clip (DeepCache, Ma et al.,
    arXiv 2312.00858): at steps in between the outermost level alone is computed, both ways. The windows may move.

    Args:
        every: of how many steps one computes all levels.
        frames: of the clip, the extra ones included.
        free: gives the bytes that are free on a device, None where that is not known. The features stay there if they
            fit in half of that, else in main memory: 5 MB a frame and branch at 512×512 in half precision.
    """

    def __init__(self, every: int, frames: int, free: Callable[[torch.device], int | None]):
        self.every, self._frames, self._free = every, frames, free
        self._features: dict[Any, Tensor] = {}
        self._known: dict[Any, Tensor] = {}
        self._making_room = threading.Lock()  # several devices may put, each from a thread of its own

    def get(self, step: int, rows: Sequence[tuple[str, int]], device) -> Tensor | None:
        """The features (rows, channels, h, w) of these branches' frames; None when this step computes them."""
        if whole_step(step, self.every):
            return None
        parts = []
        for branch, frames in _by_branch(rows):
            if branch not in self._features or not self._known[branch][frames].all():
                return None
            parts.append(self._features[branch][frames].to(device))
        return torch.cat(parts)

    def put(self, rows: Sequence[tuple[str, int]], features: Tensor) -> None:
        """Keep the features (rows, channels, h, w) of these branches' frames."""
        parts = _by_branch(rows)
        for (branch, frames), part in zip(parts, features.split([len(frames) for _, frames in parts])):
            with self._making_room:
                if branch not in self._features:
                    self._known[branch] = torch.zeros(self._frames, dtype=torch.bool)
                    self._features[branch] = self._room(part)
            store = self._features[branch]
            store[frames] = part.to(store.device)
            self._known[branch][frames] = True

    def _room(self, part):
        free = self._free(part.device)
        needed = len(BRANCHES) * self._frames * part[0].nbytes
        device = part.device if free is None or 2 * needed < free else "cpu"
        return torch.empty(self._frames, *part.shape[1:], dtype=part.dtype, device=device)


def deep_buffers(unet, cache: DeepCache, step: int, rows, like: Tensor, dtype) -> dict[str, Tensor]:
    """What the UNet takes for these rows at this step: `deep`, or room for it, `deep_out`.

    Args:
        unet: a `DiceTalkUNet`.
        rows: (branch, frame) of each picture.
        like: (channels, h, w), of the latents' size and on the UNet's device.
        dtype: that the UNet computes in.
    """
    kept = cache.get(step, rows, like.device)
    if kept is not None:
        return {"deep": kept}
    return {"deep_out": like.new_empty(len(rows), unet.deep_channels, *like.shape[1:], dtype=dtype)}


def _by_branch(rows):
    """[(branch, frames)] of rows that are in the order of branches."""
    found: list[tuple[Any, list[int]]] = []
    for branch, frame in rows:
        if not found or found[-1][0] != branch:
            found.append((branch, []))
        found[-1][1].append(frame)
    return found
