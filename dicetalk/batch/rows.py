"""Rows of a table, or of two folders, as jobs. A row with a problem is kept with its reason and stops nothing."""

import csv
import itertools
import json
import os
import re
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..embedder.options import EVIDENCE
from ..emotion.options import SUFFIX
from ..errors import InputError
from ..job import CLIP, Job, defaults
from ..script.text import is_file
from .urls import is_url

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
BETWEEN = "|"  # two emotions or seeds in one cell
PATTERN = "{portrait}_{audio}.mp4"
_SEVERAL = ("emotion", "seed")
_PATHS = ("portrait", "video", "audio", "output", "landmarks", "face_landmarker", "face_model", "voice_model", "chart")
_PARTS = re.compile(r"\{(row|portrait|audio|emotion|seed)\}")


@dataclass(frozen=True)
class Row:
    """One clip to make.

    Attributes:
        number: of the row in the table, from 1; several clips have the same where emotions or seeds multiply.
        job: the `Job`; None where the row has a problem.
        problem: one line that says why there is no job.
        output: the file that the row names, as far as it is known.
    """

    number: int
    job: Job | None = None
    problem: str | None = None
    output: str | None = None


def read_rows(path, changes: dict[str, str] | None = None, pattern: str | None = None) -> list[Row]:
    """The rows of a table.

    Args:
        path: a CSV file (commas, semicolons or tabs), JSON Lines or Parquet; columns are the fields of `Job`. Empty
            cells are defaults. Relative paths are relative to the file; URLs that fsspec knows are taken for portrait,
            video, audio, emotion, landmarks and output. A row may name several emotions or seeds, as a list in JSON and
            Parquet, and with "|" between them in CSV: it becomes a row for each pair.
        changes: field → value for all rows, instead of what the table has; relative paths are relative to the current
            folder.
        pattern: name of the output for rows that give none, see `named_output`.

    Raises:
        InputError: the file cannot be read at all. What is wrong in one row is that row's `problem`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a table, {', '.join(FORMATS)}.")
    read = {".parquet": _parquet, ".jsonl": _json_lines, ".ndjson": _json_lines}.get(path.suffix.lower(), _csv)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path} has a name that ends in none of {', '.join(FORMATS)}: rename it to what it is.")
    changes = _changes(changes)
    rows = []
    for number, values in enumerate(read(path), 1):
        if isinstance(values, str):
            rows.append(Row(number, problem=f"row {number}: {values}"))
        else:
            rows += _rows_of(number, values, changes, path.absolute().parent, pattern)
    if not rows:
        raise InputError(f"{path} has no rows: write one for each clip, below the names of the columns.")
    return without_collisions(rows)


def folder_rows(portraits, audios, changes: dict[str, str] | None = None, pattern: str | None = None) -> list[Row]:
    """Every portrait of one folder with every audio file of another; all files count whose names start with no dot.

    Args:
        portraits, audios: the folders.
        changes: field → value for all rows.
        pattern: name of the outputs, relative to the current folder, see `named_output`.

    Raises:
        InputError: a folder that is not there, or is empty.
    """
    changes = _changes(changes)
    pairs = itertools.product(_files(portraits, "portraits"), _files(audios, "audios"))
    rows = []
    for number, (portrait, audio) in enumerate(pairs, 1):
        values = {"portrait": str(portrait), "audio": str(audio)}
        rows += _rows_of(number, values, changes, Path.cwd(), pattern or PATTERN)
    return without_collisions(rows)


def named_output(pattern, number, job) -> str:
    """A pattern with {row}, {portrait}, {audio}, {emotion} and {seed} filled in; files by name, without suffix. A video
    counts as portrait, and where no other voice is given as audio."""
    parts = {
        "row": f"{number:04d}",
        "portrait": Path(job["portrait"] or job["video"]).stem,
        "audio": Path(job["audio"] or job["video"]).stem,
        "emotion": job["emotion"],
        "seed": str(job["seed"]),
    }
    return _PARTS.sub(lambda found: re.sub(r"[^\w.+-]+", "-", str(parts[found[1]])).strip("-") or "-", pattern)


def without_collisions(rows) -> list[Row]:
    """The rows; those that write the same file, or one that another reads, have that as their problem."""
    writers: dict[str, set[int]] = defaultdict(set)
    read: dict[str, int] = {}
    for row in rows:
        if row.job:
            writers[_same(row.job.output)].add(row.number)
            sources = [row.job.portrait, row.job.video, row.job.audio, row.job.landmarks, row.job.clip]
            read |= {_same(source): row.number for source in sources if source}
    times = Counter(_same(row.job.output) for row in rows if row.job)

    def checked(row):
        if row.job is None:
            return row
        output = _same(row.job.output)
        if times[output] > 1:
            others = sorted(writers[output] - {row.number})
            whom = f"row {', '.join(map(str, others[:5]))}" if others else "another emotion or seed of this row"
            problem = f"{row.job.output} is also the output of {whom}: use {{row}}, {{emotion}} or {{seed}} in its name"
        elif output in read:
            problem = f"{row.job.output} is a file that row {read[output]} reads: write to another one"
        else:
            return row
        return Row(row.number, problem=f"row {row.number}, column output: {problem}.", output=row.job.output)

    return [checked(row) for row in rows]


def _rows_of(number, values, changes, folder, pattern):
    """The row's clips, one for each of its emotions and seeds."""

    def named(name):
        return f"row {number}, column {name}"

    values = {name: _filled(value) for name, value in values.items()}
    choices = {name: _choices(changes.get(name, values.get(name))) for name in _SEVERAL}
    rows = []
    for chosen in itertools.product(*choices.values()):
        row = _absolute(values, folder) | changes | _absolute(dict(zip(choices, chosen)), folder)
        output = row.get("output") or (pattern if pattern is None or is_url(pattern) else os.path.join(folder, pattern))
        try:
            if output:
                known = defaults() | {name: value for name, value in row.items() if value is not None}
                if known["video"] or (known["portrait"] and known["audio"]):
                    output = named_output(str(output), number, known)
                    row["output"] = output
            rows.append(Row(number, Job.of(row, named), output=output))
        except InputError as error:
            rows.append(Row(number, problem=str(error), output=output and str(output)))
    return rows


def _filled(value):
    """A cell's value, None for an empty one; a NaN is how some tools write an empty cell of numbers."""
    empty = value is None or value != value or (isinstance(value, str) and not value.strip())
    return None if empty else value


def _choices(value):
    if isinstance(value, str):
        return [part.strip() for part in value.split(BETWEEN)]
    return value if isinstance(value, list) and value else [value]


def _absolute(values, folder):
    """The values with paths that are relative to a folder made absolute."""
    absolute: dict[str, Any] = dict(values)
    for name, value in values.items():
        if not isinstance(value, str) or not value:
            continue
        if is_url(value.removeprefix(CLIP) if name == "emotion" else value):
            continue
        if name in _PATHS or (name == "embedder" and value != EVIDENCE):
            absolute[name] = os.path.join(folder, value)
        elif name == "checkpoint" and os.path.exists(os.path.join(folder, value)):  # else it is a checkpoint's name
            absolute[name] = os.path.join(folder, value)
        elif name == "emotion" and value.startswith(CLIP):
            absolute[name] = CLIP + os.path.join(folder, value.removeprefix(CLIP))
        elif name == "emotion" and value.strip().lower().endswith((SUFFIX, ".npy")):
            absolute[name] = os.path.join(folder, value.strip())
        elif name == "script" and is_file(value):
            absolute[name] = os.path.join(folder, value.strip())
    return absolute


def _changes(changes):
    return _absolute(changes or {}, Path.cwd())


def _csv(path):
    with _text_errors(path), open(path, encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        delimiter = max(",;\t", key=header.count)  # names of fields have none of them
        columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        _require_fields(path, columns)
        rows = csv.reader(file, delimiter=delimiter)
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(columns) and any(cells[len(columns) :]):
                yield f"it has {len(cells)} cells for {len(columns)} columns: quote cells with {delimiter!r}."
            else:
                yield dict(zip(columns, cells))


def _json_lines(path):
    with _text_errors(path), open(path, encoding="utf-8-sig") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"it is not JSON ({error}): write one object a line."
                continue
            yield values if isinstance(values, dict) else 'it is no JSON object: write {"portrait": …} on one line.'


def _parquet(path):
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(f"{path} is read with pyarrow, which is not installed: pip install pyarrow.") from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())[:120]}.") from error
    if rows:
        _require_fields(path, rows[0])
    yield from rows


@contextmanager
def _text_errors(path):
    """Turns what is wrong with a whole text file into one InputError that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: save it as UTF-8 text.") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _require_fields(path, columns):
    known = defaults()
    for name in columns:
        if name not in known:
            raise InputError(f"{path} has a column {name!r}, which is no setting of a clip: use {', '.join(known)}.")
    if len(set(columns)) < len(columns):
        raise InputError(f"{path} has a column twice: keep one of each name.")


def _files(folder, what):
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"--{what} {folder} is no folder: name one with {what}.")
    files = sorted(file.absolute() for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise InputError(f"--{what} {folder} is empty: put {what} into it.")
    return files


def _same(path):
    """Two paths of one file give the same text."""
    return path if is_url(path) else os.path.normcase(os.path.realpath(path))
