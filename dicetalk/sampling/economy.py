"""Sampling in the memory that there is: what is tried when it runs out, and what is said when nothing helps."""

import logging
import math

from ..errors import InputError
from ..memory import is_out_of_memory

SMALLEST_WINDOW = 4
_MULTIPLE = 64


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

    def groups(self, branches) -> list[tuple[str, ...]]:
        """The branches that are computed as one batch, one group after the other."""
        return [tuple(branches)] if self.together else [(branch,) for branch in branches]

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
        f"The memory of {device} is too small for {frames} frames of {width}×{height} pixels in one branch"
        f"{figures}: close what else uses it, {', or '.join(advice)}."
    )


def window_bytes(unet, frames, width, height) -> float:
    """Bytes of activations of one branch of a window, counted from shapes, and a tenth for kernels' own use."""
    from .counting import DICETALK, Workload, count
    from .guidance import BRANCHES

    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    workload = Workload(width, height, frames, unet.dtype, network=config)
    return 1.1 * count(DICETALK, workload).peak_bytes / len(BRANCHES)
