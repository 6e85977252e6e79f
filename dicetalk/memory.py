"""Working with the memory that there is: what is tried when it runs out, and what is said when nothing helps."""

import logging
import math

import torch

from .audio import FPS
from .errors import InputError

SMALLEST_WINDOW = 4
_MULTIPLE = 64
_PHRASES = ("out of memory", "can't allocate memory", "not enough memory")


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
    """Whether memory suffices, a tenth being left to everything else; also where it is not known what is free."""
    return free is None or needed <= 0.9 * free


def require_memory(what, frames, each, free, shorter) -> None:
    """InputError unless memory suffices for a clip.

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
    if hasattr(backend, "empty_cache"):
        backend.empty_cache()


class Economy:
    """How the windows of a step are computed; when memory runs out, the rest of the run is computed in smaller pieces.

    First the branches of a window go one after the other, which changes rounding alone. Then, if it is allowed, the
    windows become half as long, as often as it takes, which changes the result.

    Args:
        window: frames of a window.
        smaller_windows: whether windows may become shorter.
        release: called between two attempts.
        is_out_of_memory: which exceptions mean that memory ran out.

    Attributes:
        together: whether all branches of a window are one batch.
        window: frames of a window.
    """

    def __init__(self, window, smaller_windows, release, is_out_of_memory=is_out_of_memory):
        self.window, self.together = window, True
        self._smaller_windows = smaller_windows
        self._release, self._is_out_of_memory = release, is_out_of_memory

    def attempt(self, too_large, compute, *args):
        """`compute(*args)`, again whenever memory ran out in it; raises what `too_large()` makes when nothing helps."""
        while True:
            try:
                return compute(*args)
            except Exception as error:
                if not self._is_out_of_memory(error):
                    raise
            # Here, not in the handler: while the exception lives, so do the tensors of the failed attempt.
            self._release()
            if not self._spare():
                raise too_large()

    def _spare(self):
        if self.together:
            self.together = False
            _log("Memory ran out: the branches of a window are computed one after the other from here on.")
        elif self._smaller_windows and self.window > SMALLEST_WINDOW:
            self.window = max(math.ceil(self.window / 2), SMALLEST_WINDOW)
            _log(f"Memory ran out: windows have {self.window} frames from here on, which changes the result.")
        else:
            return False
        return True


def _log(text):
    logging.getLogger(__name__).warning(text)


def fitting_side(side, needed, free, smallest=_MULTIPLE) -> int | None:
    """The short side that would fit.

    Args:
        side: the one that did not, in pixels.
        needed: bytes that its activations take; they grow as the number of pixels does.
        free: bytes that are free.
        smallest: side that can be asked for.

    Returns:
        The largest multiple of 64 below `side` that fits by this measure; None when there is none.
    """
    share = max(free, 0) / needed
    fits = min(math.floor(side * math.sqrt(share)) // _MULTIPLE, (side - 1) // _MULTIPLE) * _MULTIPLE
    return fits if fits >= smallest else None


def too_large(device, width, height, frames, needed, free, smaller_size, smaller_windows=None) -> InputError:
    """The error for frames that do not fit.

    Args:
        device: its name.
        width, height, frames: of one branch of a window.
        needed, free: bytes, None where that is not known.
        smaller_size: makes the advice for a short side in pixels that fits.
        smaller_windows: the advice to allow shorter windows; None when they are allowed and did not help.
    """
    figures = "" if free is None else f" ({needed / 1e9:.2f} GB are needed, {max(free, 0) / 1e9:.2f} GB free)"
    side = fitting_side(min(width, height), needed, needed if free is None else free)
    advice = [smaller_size(side) if side else "use a device with more memory"]
    advice += [smaller_windows] * (smaller_windows is not None)
    return InputError(
        f"The memory of {device} does not suffice for {frames} frames of {width}×{height} pixels in one branch"
        f"{figures}: close what else uses it, {', or '.join(advice)}."
    )


def window_bytes(unet, frames, width, height) -> float:
    """Bytes of activations of one branch of a window, counted from shapes, and a tenth for kernels' own use."""
    from .bench import DICETALK, Workload, count
    from .sampling import BRANCHES

    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    workload = Workload(width, height, frames, unet.dtype, network=config)
    return 1.1 * count(DICETALK, workload).peak_bytes / len(BRANCHES)
