"""Who computes what of a step: its windows, and branches of them, shared out evenly over processes or devices."""

import math
from typing import NamedTuple, Sequence


class Part(NamedTuple):
    """Branches of a window that are computed together. `window` is its place among those of the step."""

    window: int
    branches: tuple[str, ...]


def shared_out(windows: int, branches: Sequence[str], workers: int) -> list[list[Part]]:
    """The parts of each worker.

    Whole windows go round as long as every worker gets one. Of those that are left, branches go to the workers one by
    one where that is sooner done: one window and two workers are two branches and one. They are as equal as can be, so
    that no worker waits for more than a branch.

    Args:
        windows: of the step.
        branches: of each window, out of `dicetalk.sampling.guidance.BRANCHES`.
        workers: how many there are.
    """
    whole = windows - windows % workers
    shares = [[Part(window, tuple(branches)) for window in range(worker, whole, workers)] for worker in range(workers)]
    left = [(window, branch) for window in range(whole, windows) for branch in branches]
    if math.ceil(len(left) / workers) == len(branches):  # no sooner than with whole ones
        for worker, window in enumerate(range(whole, windows)):
            shares[worker].append(Part(window, tuple(branches)))
        return shares
    each, more = divmod(len(left), workers)
    for worker in range(workers):
        mine, left = left[: each + (worker < more)], left[each + (worker < more) :]
        for window in dict.fromkeys(window for window, _ in mine):
            shares[worker].append(Part(window, tuple(branch for place, branch in mine if place == window)))
    return shares
