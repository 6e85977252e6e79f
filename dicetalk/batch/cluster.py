"""A batch on Ray: one actor for each GPU, or some on CPUs; whichever is idle gets the next row."""

import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterable

from ..errors import InputError
from ..files import remove_leftovers
from ..job import Job
from ..rendering import run_names
from ..sampling.resume import state_path
from .engine import FAILED, Engine, Outcome
from .rows import Row
from .running import AT_ONCE, ready
from .urls import is_url

TRIES = 3  # times that a row may be in hand of a worker that dies
SECONDS = 2.0  # between two questions of how far the workers are


class Worker:
    """What each actor is: an engine, in a process of its own.

    Args:
        threads: of PyTorch on the CPU; its default when None.
    """

    def __init__(self, threads: int | None = None):
        import ray
        import torch

        if threads:
            torch.set_num_threads(threads)
        self._name = f"{ray.get_runtime_context().get_node_id()[:8]}-{os.getpid()}"
        self._engine = Engine(name=self._name)

    def begin(self) -> None:
        """Returns when the process is there."""

    def make(self, number: int, job: Job) -> Outcome:
        """See `Engine.make`."""
        return self._engine.make(job, number)

    def windows(self) -> tuple[str, int]:
        """The name of this worker, and the window steps that it has computed so far."""
        return self._name, self._engine.windows

    def stop(self) -> None:
        """See `Engine.stop`."""
        self._engine.stop()


def run_on_ray(
    rows: Iterable[Row],
    on_outcome: Callable[[Outcome], None],
    workers: int | None = None,
    address: str | None = None,
    on_windows: Callable[[str, int], None] = lambda worker, windows: None,
) -> None:
    """Make all rows on a Ray cluster. Files are read and written where the workers are, under the same paths.

    A worker that dies costs only the rows in its hands, which others take over from their last kept steps.

    Args:
        rows: see `read_rows` and `folder_rows`.
        on_outcome: called with each row's end.
        workers: how many; None for one for each GPU, or for each machine if there are none.
        address: of a cluster that exists, or "auto"; None starts one on this machine, which ends with the call.
        on_windows: called every few seconds with the name of a worker and the window steps that it has computed so far.

    Raises:
        InputError: Ray is not installed, there is no cluster at the address, or no worker starts on it.
    """
    ray = _ray()
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, address)
    try:
        _run(ray, ready(rows, on_outcome), on_outcome, workers, _Watch(ray, on_windows))
    finally:
        if mine:
            ray.shutdown()


class _Watch:
    """Asks the workers now and then how far they are."""

    def __init__(self, ray, on_windows):
        self._ray, self._on_windows = ray, on_windows
        self._asked: list[tuple[Any, Any]] = []  # worker, what its answer will be
        self._asked_at = 0.0

    def look(self, actors):
        """Take the answers that have come, and ask those who owe none."""
        if time.monotonic() < self._asked_at + SECONDS:
            return
        self._asked_at = time.monotonic()
        came = []
        if self._asked:
            references = [reference for _, reference in self._asked]
            came, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        for reference in came:
            with suppress(self._ray.exceptions.RayError):  # of one that died
                self._on_windows(*self._ray.get(reference))
        self._asked = [(actor, reference) for actor, reference in self._asked if reference not in came]
        for actor in actors:
            if not any(other is actor for other, _ in self._asked):
                self._asked.append((actor, actor.windows.remote()))


def _run(ray, rows, on_outcome, workers, watch):
    workers, start = _starter(ray, workers)
    todo = deque(rows)
    tries: dict[int, int] = {}
    pending: dict[Any, tuple] = {}  # what an actor does → the actor, and (number, job), or None for its start
    starts_failed = 0
    for _ in range(min(workers, len(rows))):
        actor = start()
        pending[actor.begin.remote()] = actor, None

    def hand_out(actor):
        if todo:
            row = todo.popleft()
            pending[actor.make.remote(*row)] = actor, row

    try:
        while todo or any(row is not None for _, row in pending.values()):
            finished, _ = ray.wait(list(pending), num_returns=1, timeout=SECONDS)
            watch.look({id(actor): actor for actor, _ in pending.values()}.values())
            if not finished:
                continue
            (ended,) = finished
            actor, row = pending.pop(ended)
            try:
                outcome = ray.get(ended)
            except ray.exceptions.RayError as error:
                starts_failed = starts_failed + 1 if row is None else 0
                if starts_failed >= TRIES:
                    raise InputError(
                        f"Ray cannot start a worker ({' '.join(str(error).split())[-200:]}): is this package installed "
                        "on every machine of the cluster?"
                    ) from error
                _take_back(row, error, todo, tries, on_outcome)
                if not any(other is actor for other, _ in pending.values()):  # all that it had has come back
                    actor = start()
                    pending[actor.begin.remote()] = actor, None
                continue
            if row is None:
                starts_failed = 0
                for _ in range(AT_ONCE):
                    hand_out(actor)
            else:
                if tries.get(id(row)):
                    _clean(row, outcome)
                on_outcome(outcome)
                hand_out(actor)
    finally:
        actors = {id(actor): actor for actor, _ in pending.values()}.values()
        made = [reference for reference, (_, row) in pending.items() if row is not None]
        if made:  # interrupted: the steps that are done are kept first
            for actor in actors:
                actor.stop.remote()
            ray.wait(made, num_returns=len(made), timeout=60)
        for actor in actors:
            ray.kill(actor)


def _take_back(row, error, todo, tries, on_outcome):
    """Another worker gets the row, unless it was in hand of too many that died."""
    if row is None:
        return
    tries[id(row)] = tries.get(id(row), 0) + 1
    if tries[id(row)] < TRIES:
        todo.appendleft(row)
    else:
        reason = f"{TRIES} workers ended while it was made, the last one so: {' '.join(str(error).split())[:200]}"
        number, job = row
        on_outcome(Outcome(number, FAILED, job.output, reason))


def _clean(row, outcome):
    """Remove what a dead worker may have left of a row that another made."""
    if outcome.status != FAILED and not is_url(row[1].output):  # `put` cleans up there
        remove_leftovers(Path(row[1].output))
        for name in run_names(row[1]):
            state_path(name).unlink(missing_ok=True)


def _starter(ray, workers):
    """How many workers there are to be, and what starts one."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    workers = workers or gpus or sum(node["Alive"] for node in ray.nodes())
    threads = None if gpus else max(1, cpus // workers)
    kind = ray.remote(Worker).options(
        num_cpus=min(1, cpus / workers),  # so that as many start as are asked for
        num_gpus=1 if gpus else 0,
        max_concurrency=AT_ONCE + 2,  # `windows` and `stop`
        scheduling_strategy="SPREAD",
    )
    return workers, lambda: kind.remote(threads)


def _ray():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            "Ray is not installed, and several workers need it: pip install ray, or leave out --workers and --ray to "
            "make the videos one after the other in one process."
        ) from None
    return ray


def _connect(ray, address):
    options = {"address": address} if address else {"address": "local", "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"--ray {address}" if address else "Ray on this machine"
        raise InputError(f"{where}: there is no cluster ({' '.join(str(error).split())[:160]}).") from error
