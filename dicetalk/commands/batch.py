"""Make many talking videos: one for each row of a table (CSV, JSON Lines or Parquet), or for every portrait of a folder
with every audio file of another. Weights load once, what rows share is computed once, and a row that fails stops
nothing. The same command continues after an interruption. Exit code 1: a row failed; the report says why."""

import json
import sys
import time
from collections import Counter

HELP = "make many videos from a table or two folders, on one machine or a Ray cluster"

EXAMPLES = (
    ("check every row, and say about how long it takes", "jobs.csv --dry-run"),
    ("make them; the report is jobs.csv.report.jsonl", "jobs.csv --set emotion=happy"),
    (
        "every portrait with every audio file, twice",
        '--portraits faces --audios speech --set "emotion=happy|sad" --output-pattern '
        '"out/{portrait}_{audio}_{emotion}.mp4"',
    ),
    ("on every GPU of this machine", "jobs.csv --workers auto"),
    ("on a Ray cluster", "jobs.parquet --ray auto"),
)


def add_arguments(parser):
    add = parser.add_argument
    add(
        "jobs",
        metavar="JOBS",
        nargs="?",
        help="table with a row for each video; its columns are the options of generate with _ for -, such as portrait, "
        "audio, emotion, output, seed and emotion_scale; paths are relative to the table, or URLs; several emotions or "
        'seeds in a cell, with "|" between them (or a list in JSON), multiply',
    )
    add("--portraits", metavar="DIR", help="instead of a table: a folder of portraits")
    add("--audios", metavar="DIR", help="with --portraits: a folder of speech; each portrait speaks each")
    add(
        "--output-pattern",
        metavar="PATTERN",
        help="name of the videos where the table gives none, with {row}, {portrait}, {audio}, {emotion} and {seed} "
        "(default with --portraits: {portrait}_{audio}.mp4)",
    )
    add(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="the value of a field in all rows, such as emotion=happy, instead of what the table has; may be repeated",
    )
    add("--dry-run", action="store_true", help="check every row, count the window steps, and make nothing")
    add(
        "--workers",
        metavar="N",
        help="auto: one for each GPU; more than 1 needs Ray (default: 1; with --ray one for each GPU of the cluster, "
        "or for each machine if there are none)",
    )
    add("--ray", metavar="ADDRESS", help="address of a running Ray cluster, or auto; needs Ray")
    add("--report", metavar="FILE", help="JSON Lines of how each row ended (default: JOBS.report.jsonl)")
    add("--json", action="store_true", help="print one JSON object a line: each row's end with the progress, and a sum")


def read_changes(texts) -> dict[str, str]:
    """["emotion=happy", "size=256"] → {"emotion": "happy", "size": "256"}; InputError for what is no field."""
    from ..errors import InputError
    from ..job import defaults

    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in defaults():
            raise InputError(f"--set {text}: give FIELD=VALUE, with a field out of {', '.join(defaults())}.")
        changes[name] = value
    return changes


def run(args):
    """Make the videos. Returns 0, or 1 if a row failed."""
    from ..batch.rows import folder_rows, read_rows
    from ..errors import InputError

    if (args.jobs is None) == (args.portraits is None):
        raise InputError("Give a table, or --portraits and --audios: exactly one of the two.")
    if (args.portraits is None) != (args.audios is None):
        raise InputError("--portraits and --audios are given together, or a table instead.")
    if args.workers not in (None, "auto"):
        _number(args.workers)
    changes = read_changes(args.set)
    if args.jobs:
        rows = read_rows(args.jobs, changes, args.output_pattern)
    else:
        rows = folder_rows(args.portraits, args.audios, changes, args.output_pattern)
    if args.dry_run:
        return _check(args, rows)
    return _make(args, rows)


def _make(args, rows):
    from ..batch.engine import Engine
    from ..batch.running import Report, run_here

    workers = _workers(args)
    path = args.report or f"{args.jobs or 'batch'}.report.jsonl"
    _require_apart(path, args.jobs, rows)
    report = Report(path)
    with _Progress(len(rows), args.json) as progress:

        def on_outcome(outcome):
            report.add(outcome)
            progress.add(outcome)

        try:
            if args.ray is None and workers <= 1:
                engine = Engine(lambda count: progress.windows(engine.name, engine.windows))
                run_here(rows, on_outcome, engine)
            else:
                from ..batch.cluster import run_on_ray

                run_on_ray(rows, on_outcome, workers, args.ray, progress.windows)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Finished steps are kept: the same command continues from there.") from None
        finally:
            report.close()
    progress.summary(f"Report: {path}", report=str(path))
    return 1 if progress.ended["failed"] else 0


def _workers(args):
    """How many there are to be; None for as many as a cluster has GPUs."""
    from importlib.util import find_spec

    if args.ray is not None:
        return None if args.workers in (None, "auto") else _number(args.workers)
    if args.workers == "auto":
        import torch

        workers = torch.cuda.device_count()
    else:
        workers = _number(args.workers or "1")
    if workers > 1 and find_spec("ray") is None:
        note = f"Note: {workers} workers need Ray (pip install ray): the videos are made in one process now."
        print(note, file=sys.stderr, flush=True)
        return 1
    return workers


def _require_apart(report, table, rows):
    """InputError for a report that would replace what the batch reads or writes."""
    from ..batch.rows import files_read, files_written, same_file
    from ..errors import InputError

    mine = same_file(report)
    if table is not None and mine == same_file(table):
        raise InputError(f"--report is {report}, the table itself: name another file.")
    for row in rows:
        files = [*files_read(row.job), *(file for _, file in files_written(row.job))] if row.job else []
        if mine in map(same_file, files):
            raise InputError(f"--report is {report}, a file of row {row.number}: name another one.")


def _check(args, rows):
    from ..batch.plan import plan

    with _Progress(len(rows), args.json, "checked") as progress:
        found = plan(rows, progress.add)
    text = f"{found.windows} window steps, about {_duration(found.seconds)} of sampling on one device of this machine"
    progress.summary(text, window_steps=found.windows, seconds=round(found.seconds, 1))
    return 1 if found.failed else 0


class _Progress:
    """Prints what becomes of the rows, for people as a bar with the failures above it, or as JSON."""

    def __init__(self, total, as_json, done="done"):
        from tqdm import tqdm

        self.ended = {"done": 0, "skipped": 0, "failed": 0}
        self._total, self._json, self._done = total, as_json, done
        self._clips: Counter = Counter()  # by worker, as are the window steps: of clips that ended, and of all
        self._windows_of_clips: Counter = Counter()
        self._windows: Counter = Counter()
        self._begun = time.monotonic()
        self._bar = tqdm(total=total, desc="Batch", unit="clip", disable=True if as_json else None)
        self._write = tqdm.write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def windows(self, worker, count):
        """So many window steps has a worker computed until now."""
        self._windows[worker] = max(self._windows[worker], count)
        self._bar.set_postfix(windows=self._windows.total(), **self._how_many_workers())

    def add(self, outcome):
        """A row has ended."""
        self.ended[outcome.status] += 1
        count = sum(self.ended.values())
        self._clips[outcome.worker] += 1
        self._windows_of_clips[outcome.worker] += outcome.windows
        self.windows(outcome.worker, self._windows_of_clips[outcome.worker])
        self._bar.update(1)
        if self._json:
            _print_json(outcome.values() | self._progress(count, outcome.worker))
            return
        status = self._done if outcome.status == "done" else outcome.status
        where = f" {outcome.output}" if outcome.output else ""
        on = f" (worker {outcome.worker})" if outcome.worker else ""
        reason = f": {outcome.reason}" if outcome.reason else ""
        line = f"row {outcome.row} {status}{where}{on}{reason}"
        self._write(line, file=sys.stderr if outcome.status == "failed" else sys.stdout)

    def summary(self, text, **values):
        """The last lines."""
        workers = {worker: self._of_worker(worker) for worker in self._clips if worker is not None}
        if self._json:
            _print_json(self.ended | values | ({"workers": workers} if workers else {}))
            return
        for worker, made in workers.items():
            print(f"worker {worker}: {made['clips']} clips, {made['windows']} window steps")
        done, skipped, failed = self.ended.values()
        print(f"{done} {self._done}, {skipped} skipped, {failed} failed. {text}")

    def _progress(self, count, worker):
        made = self.ended["done"]  # what is there already takes no time
        each = (time.monotonic() - self._begun) / made if made else None
        left = 0.0 if count == self._total else each and round(each * (self._total - count), 1)
        progress = {"clips_ended": count, "clips": self._total, "seconds_left": left}
        progress["windows_ended"] = self._windows.total()
        if worker is not None:
            progress |= {f"worker_{name}": value for name, value in self._of_worker(worker).items()}
        return progress

    def _of_worker(self, worker):
        return {"clips": self._clips[worker], "windows": self._windows[worker]}

    def _how_many_workers(self):
        workers = sum(worker is not None for worker in self._windows)
        return {"workers": workers} if workers else {}


def _print_json(values):
    print(json.dumps(values, ensure_ascii=False), flush=True)


def _number(text):
    from ..errors import InputError

    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--workers {text}: give auto or a whole number from 1 on.")
    return int(text)


def _duration(seconds):
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
