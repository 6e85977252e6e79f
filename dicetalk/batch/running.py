"""Making all rows of a batch in one process, and the report of it."""

import contextlib
import itertools
import json
import os
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Callable, Iterable

from ..errors import InputError
from ..files import write_errors
from ..job import Job
from .engine import FAILED, Engine, Outcome, Stopped
from .rows import Row

AT_ONCE = 2  # clips in hand: one is sampled while the one before it is written


class Report:
    """A JSON Lines file with an object for each row, written as the rows end.

    Args:
        path: of the file; an earlier one is replaced.
    """

    def __init__(self, path):
        self.path = Path(path)
        with write_errors(self.path):
            self._file = open(self.path, "w", encoding="utf-8")

    def add(self, outcome: Outcome) -> None:
        """Write a row's end; it is on the disk when this returns."""
        with write_errors(self.path):
            self._file.write(json.dumps(outcome.values(), ensure_ascii=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self):
        self._file.close()


def ready(rows: Iterable[Row], on_outcome: Callable[[Outcome], None]) -> list[tuple[int, Job]]:
    """Number and job of the rows that have one, by checkpoint and portrait, so that what they share is computed once.

    Rows with a problem end here: `on_outcome` is called with each.
    """
    jobs: list[tuple[int, int, int, Job]] = []
    places: dict[tuple, int] = {}
    for row in rows:
        if row.job is None:
            on_outcome(Outcome(row.number, FAILED, row.output, row.problem))
            continue
        networks = row.job.checkpoint, row.job.device, row.job.dtype
        for key in (networks, (networks, row.job.portrait)):
            places.setdefault(key, len(places))
        jobs.append((places[networks], places[networks, row.job.portrait], row.number, row.job))
    return [(number, job) for _, _, number, job in sorted(jobs, key=lambda job: job[:2])]


def run_here(rows: Iterable[Row], on_outcome: Callable[[Outcome], None], engine: Engine | None = None) -> None:
    """Make all rows in this process.

    Args:
        rows: see `read_rows` and `folder_rows`.
        on_outcome: called with each row's end, from this thread.
        engine: what makes them; a new one when None.

    Raises:
        KeyboardInterrupt: finished steps of the clips in hand are kept, and the same rows continue from there.
    """
    engine = engine or Engine()
    todo = iter(ready(rows, on_outcome))
    pool = ThreadPoolExecutor(AT_ONCE, "dicetalk-batch")
    pending = {pool.submit(engine.make, job, number) for number, job in itertools.islice(todo, AT_ONCE)}
    try:
        while pending:
            ended, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in ended:
                on_outcome(future.result())
                for number, job in itertools.islice(todo, 1):
                    pending.add(pool.submit(engine.make, job, number))
    finally:
        engine.stop()
        pool.shutdown(wait=True, cancel_futures=True)
        for future in pending:
            with contextlib.suppress(Stopped, InputError):
                if future.done() and not future.cancelled():
                    on_outcome(future.result())
