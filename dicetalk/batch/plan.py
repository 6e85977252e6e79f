"""What a batch would take: every row checked, window steps counted, and the time of them reckoned."""

from dataclasses import dataclass
from typing import Callable, Iterable

from .engine import DONE, FAILED, SKIPPED, Engine, Outcome, reason_of
from .rows import Row
from .running import ready

SHARE = 0.5  # of the rate of a large matrix product, that the network reaches


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        clips, skipped, failed: how many rows would be made, are there already, and have a problem.
        windows: window steps of all that would be made.
        seconds: about how long their sampling takes on one device.
    """

    clips: int
    skipped: int
    failed: int
    windows: int
    seconds: float


def plan(rows: Iterable[Row], on_outcome: Callable[[Outcome], None]) -> Plan:
    """Check every row, with files, face and length, without loading weights or writing anything.

    Args:
        on_outcome: called with what each row would end as: "done", "skipped", or "failed" with its reason.
    """
    counted = {DONE: 0, SKIPPED: 0, FAILED: 0}
    sizes: dict[tuple, int] = {}

    def end(outcome):
        counted[outcome.status] += 1
        on_outcome(outcome)

    engine = Engine()
    for number, job in ready(rows, end):
        try:
            found = engine.check(job)
            if found is None:
                end(Outcome(number, SKIPPED, job.output))
                continue
            steps, size, device, network = found
        except Exception as error:  # as in `Engine.make`
            end(Outcome(number, FAILED, job.output, reason_of(error)))
            continue
        key = size, device, job.dtype, network
        sizes[key] = sizes.get(key, 0) + steps
        end(Outcome(number, DONE, job.output, windows=steps))
    return Plan(counted[DONE], counted[SKIPPED], counted[FAILED], sum(sizes.values()), reckoned_seconds(sizes))


def reckoned_seconds(sizes: dict[tuple, int]) -> float:
    """Seconds of sampling: operations counted from shapes, at half the rate of a large matrix product.

    Args:
        sizes: ((width, height), device, dtype, the network's arguments as `Engine.check` gives them) → window steps.
    """
    from ..measure.bench import matrix_rate
    from ..memory import choose_dtype
    from ..sampling.counting import DICETALK, Workload, count
    from ..sampling.windows import WINDOW

    total = 0.0
    for ((width, height), device, dtype, network), steps in sizes.items():
        dtype = choose_dtype(dtype, device)
        flops = count(DICETALK, Workload(width, height, WINDOW, dtype, network=dict(network))).flops
        total += steps * flops / matrix_rate(device, dtype) / SHARE
    return total
