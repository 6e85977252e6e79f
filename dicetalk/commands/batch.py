"""Make many talking videos: one for each row of a table (CSV, JSON Lines or Parquet), or for every portrait of a folder
with every audio file of another. Weights load once, what rows share is computed once, and a row that fails stops
nothing. The same command continues after an interruption. Exit code 1: a row failed; the report says why."""

import json
import sys
import time

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
    add("--workers", default="1", metavar="N", help="auto: one for each GPU; more than 1 needs Ray (default: 1)")
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
    workers = None if args.workers == "auto" else _number(args.workers)
    changes = read_changes(args.set)
    if args.jobs:
        rows = read_rows(args.jobs, changes, args.output_pattern)
    else:
        rows = folder_rows(args.portraits, args.audios, changes, args.output_pattern)
    if args.dry_run:
        return _check(args, rows)
    return _make(args, rows, workers)


def _make(args, rows, workers):
    from ..batch.engine import Engine
    from ..batch.running import Report, run_here

    path = args.report or f"{args.jobs or 'batch'}.report.jsonl"
    report = Report(path)
    with _Progress(len(rows), args.json) as progress:

        def on_outcome(outcome):
            report.add(outcome)
            progress.add(outcome)

        try:
            if args.ray is None and workers is None:
                import torch

                workers = torch.cuda.device_count()
            if args.ray is None and workers <= 1:
                run_here(rows, on_outcome, Engine(progress.windows))
            else:
                from ..batch.cluster import run_on_ray

                run_on_ray(rows, on_outcome, workers, args.ray)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Finished steps are kept: the same command continues from there.") from None
        finally:
            report.close()
    progress.summary(f"Report: {path}", report=str(path))
    return 1 if progress.ended["failed"] else 0


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
        self._windows, self._begun = 0, time.monotonic()
        self._bar = tqdm(total=total, desc="Batch", unit="clip", disable=True if as_json else None)
        self._write = tqdm.write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def windows(self, count):
        """More window steps are computed."""
        self._windows += count
        self._bar.set_postfix(windows=self._windows)

    def add(self, outcome):
        """A row has ended."""
        self.ended[outcome.status] += 1
        count = sum(self.ended.values())
        self._bar.update(1)
        if self._json:
            left = (time.monotonic() - self._begun) / count * (self._total - count)
            progress = {"clips_ended": count, "clips": self._total, "seconds_left": round(left, 1)}
            _print_json(outcome.values() | progress)
            return
        status = self._done if outcome.status == "done" else outcome.status
        where = f" {outcome.output}" if outcome.output else ""
        on = f" (worker {outcome.worker})" if outcome.worker else ""
        reason = f": {outcome.reason}" if outcome.reason else ""
        line = f"row {outcome.row} {status}{where}{on}{reason}"
        self._write(line, file=sys.stderr if outcome.status == "failed" else sys.stdout)

    def summary(self, text, **values):
        """The last line."""
        if self._json:
            _print_json(self.ended | values)
        else:
            done, skipped, failed = self.ended.values()
            print(f"{done} {self._done}, {skipped} skipped, {failed} failed. {text}")


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
