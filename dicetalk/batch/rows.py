"""Rows of a table, or of two folders, as jobs. A row with a problem is kept with its reason and stops nothing."""

import csv
import itertools
import json
import os
import re
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..embedder.options import EVIDENCE
from ..errors import InputError
from ..job import CLIP, Job, defaults, saved_emotion
from ..script.text import is_file
from .urls import is_url, list_folder

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
        portraits, audios: the folders, or URLs of folders.
        changes: field → value for all rows.
        pattern: name of the outputs, relative to the current folder, see `named_output`.

    Raises:
        InputError: a folder that is not there, or is empty.
    """
    changes = _changes(changes)
    pairs = itertools.product(_files(portraits, "portraits"), _files(audios, "audios"))
    rows = []
    for number, (portrait, audio) in enumerate(pairs, 1):
        values = {"portrait": portrait, "audio": audio}
        rows += _rows_of(number, values, changes, Path.cwd(), pattern or PATTERN)
    return without_collisions(rows)


def named_output(number: int, job: Job) -> str:
    """The output of a job with {row}, {portrait}, {audio}, {emotion} and {seed} filled in; files, an emotion's too, by
    name, without suffix. A video counts as portrait, and where no other voice is given as audio."""
    emotion_file = job.clip or job.saved_emotion
    parts = {
        "row": f"{number:04d}",
        "portrait": Path(job.portrait or job.video or "").stem,
        "audio": Path(job.speech).stem,
        "emotion": Path(emotion_file).stem if emotion_file else job.emotion,
        "seed": str(job.seed),
    }
    return _PARTS.sub(lambda found: re.sub(r"[^\w.+-]+", "-", parts[found[1]]).strip("-") or "-", job.output)


def without_collisions(rows) -> list[Row]:
    """The rows; those that write the same file, or one that another reads, have that as their problem."""
    writers: dict[str, list[int]] = defaultdict(list)
    readers: dict[str, int] = {}
    for row in rows:
        if row.job:
            for _, path in files_written(row.job):
                writers[same_file(path)].append(row.number)
            readers |= {same_file(path): row.number for path in files_read(row.job)}

    def checked(row):
        for field, path in files_written(row.job) if row.job else ():
            file = same_file(path)
            if len(writers[file]) > 1:
                others = sorted({*writers[file]} - {row.number})
                whom = f"row {', '.join(map(str, others[:5]))}" if others else "another emotion or seed of this row"
                remedy = "use {row}, {emotion} or {seed} in its name" if field == "output" else "give each its own"
                problem = f"{path} is also the output of {whom}: {remedy}"
            elif file in readers:
                problem = f"{path} is a file that row {readers[file]} reads: write to another one"
            else:
                continue
            return Row(row.number, problem=f"row {row.number}, column {field}: {problem}.", output=row.job.output)
        return row

    return [checked(row) for row in rows]


def files_written(job: Job) -> list[tuple[str, str]]:
    """(field that names it, file) of all that a job writes."""
    beside = [("output", str(file)) for file in job.beside]
    return [("output", job.output), *beside, *([("chart", job.chart)] if job.chart else [])]


def files_read(job: Job) -> list[str]:
    """The files that a job names, but for models."""
    script = job.script if is_file(job.script) else None
    files = job.portrait, job.video, job.audio, job.landmarks, job.clip, job.saved_emotion, script
    return [file for file in files if file]


def same_file(path: str) -> str:
    """Two paths of one file give the same text."""
    return path if is_url(path) else os.path.normcase(os.path.realpath(path))


def _rows_of(number, values, changes, folder, pattern):
    """The row's clips, one for each of its emotions and seeds."""

    def named(name):
        return f"row {number}, column {name}"

    try:
        row = _located({name: _filled(value) for name, value in values.items()}, folder, named) | changes
    except InputError as error:
        return [Row(number, problem=str(error))]
    output = row.get("output") or (pattern if pattern is None or is_url(pattern) else os.path.join(folder, pattern))
    rows = []
    for chosen in itertools.product(*(row.get(name, [None]) for name in _SEVERAL)):
        try:
            job = Job.of(row | dict(zip(_SEVERAL, chosen)) | {"output": output}, named)
            job = replace(job, output=named_output(number, job))
            rows.append(Row(number, job, output=job.output))
        except InputError as error:
            rows.append(Row(number, problem=str(error), output=output and str(output)))
    return rows


def _filled(value):
    """A cell's value, None for an empty one; a NaN is how some tools write an empty cell of numbers."""
    empty = value is None or value != value or value == [] or (isinstance(value, str) and not value.strip())
    return None if empty else value


def _located(values, folder, named):
    """The values with paths that are relative to a folder made absolute; for emotion and seed a list of all choices."""
    located: dict[str, Any] = {}
    for name, value in values.items():
        if name in _SEVERAL:
            located[name] = [_absolute(name, choice, folder) for choice in _choices(value, named(name))]
        else:
            located[name] = _absolute(name, value, folder)
    return located


def _choices(value, name):
    """What a cell of one or several names."""
    if isinstance(value, str):
        choices = [part.strip() for part in value.split(BETWEEN)]
    else:
        choices = value if isinstance(value, list) else [value]
    if len(choices) > 1 and any(_filled(choice) is None for choice in choices):
        raise InputError(f"{name} is {value}, where one choice of several is empty: leave it out.")
    return choices


def _absolute(name, value, folder):
    """A value, if it is a path that is relative to a folder as an absolute one."""
    if not isinstance(value, str) or not value:
        return value
    before = CLIP if name == "emotion" and value.startswith(CLIP) else ""
    path = value.removeprefix(before)
    if is_url(path):
        return value
    is_path = (
        name in _PATHS
        or (name == "embedder" and value != EVIDENCE)
        or (name == "checkpoint" and os.path.exists(os.path.join(folder, value)))  # else it is a checkpoint's name
        or (name == "emotion" and (before or saved_emotion(value)))
        or (name == "script" and is_file(value))
    )
    if name in ("emotion", "script"):
        path = path.strip()
    return before + os.path.join(folder, path) if is_path else value


def _changes(changes):
    return _located(changes or {}, Path.cwd(), "{} for all rows".format)


def _csv(path):
    line = 1
    with _text_errors(path), open(path, encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        delimiter = max(",;\t", key=header.count)  # names of fields have none of them
        form = {"delimiter": delimiter, "skipinitialspace": delimiter != "\t", "strict": True}
        try:
            columns = [name.strip() for name in next(csv.reader([header], **form), [])]
            while columns and not columns[-1]:  # a spreadsheet's empty columns
                columns.pop()
            _require_fields(path, columns)
            line = 2
            reader = csv.reader(file, **form)
            for cells in reader:
                line = reader.line_num + 2
                cells = [cell.strip() for cell in cells]
                if not any(cells):
                    continue
                if any(cells[len(columns) :]):
                    yield f"it has {len(cells)} cells for {len(columns)} columns: quote cells with {delimiter!r}."
                else:
                    yield dict(zip(columns, cells))
        except csv.Error as error:  # such as a quote that is never closed, which would swallow the rows below it
            raise InputError(
                f"{path} cannot be read from line {line} on: {error}; check its quotation marks."
            ) from error


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
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _require_fields(path, columns):
    known = defaults()
    for name in columns:
        if name not in known:
            raise InputError(f"{path} has a column {name!r}, which is no setting of a clip: use {', '.join(known)}.")
    if len(set(columns)) < len(columns):
        raise InputError(f"{path} has a column twice: keep one of each name.")


def _files(folder, what):
    if is_url(folder):
        files = list_folder(folder, f"--{what}")
    elif Path(folder).is_dir():
        files = [str(file.absolute()) for file in Path(folder).iterdir() if file.is_file()]
    else:
        raise InputError(f"--{what} {folder} is no folder: name one with {what}.")
    files = sorted(file for file in files if not os.path.basename(file).startswith("."))
    if not files:
        raise InputError(f"--{what} {folder} is empty: put {what} into it.")
    return files
