"""DICE-Talk Job List."""

import importlib
import logging
import os
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui

from ..dicetalk.batch.rows import FORMATS, read_rows
from ..dicetalk.batch.urls import is_url
from ..dicetalk.checkpoints.priors import read_emotion
from ..dicetalk.emotion.parsing import resolve
from ..dicetalk.errors import InputError
from ..dicetalk.job import Job, defaults
from ..dicetalk.media.image import is_heif, is_raw, is_still, load_image
from ..dicetalk.memory import fits
from ..dicetalk.sampling.student import own_settings
from .checks import digest
from .emotion.files import emotion_library, fingerprint, saved_emotions
from .types import DiceTalk, Emotion
from .words import in_comfyui

LEAVE_OUT, STOP = "leave out", "stop"
_NONE = "(no table found)"
_OUTPUT = "{row}_{portrait}_{audio}.mp4"  # of rows that name none
# What a row may say and this node gives; the rest is set in other nodes. A speed is the name of several of them.
_GIVEN = {"portrait", "audio", "emotion", "output", "start", "length", "seed", "steps", "size", "crop", "margin"}
_GIVEN |= {"speed", "face", "reference_scale", "emotion_scale", "speech_strength", "emotion_strength"}


class DiceTalkJobList(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        def each(output, name, tooltip="For the input of the same name, a value for each row."):
            return output(display_name=name, is_output_list=True, tooltip=tooltip)

        return io.Schema(
            node_id="DiceTalkJobList",
            display_name="DICE-Talk Job List",
            category="DICE-Talk/input",
            description="Many videos from one queued prompt: reads the same table as `dicetalk batch` and gives its "
            "rows as lists, which the nodes behind it work through.",
            search_aliases=["batch", "csv", "table", "many videos", "queue", "list"],
            inputs=[
                DiceTalk.Input("dicetalk", tooltip="From Load DICE-Talk; for the emotions that the table names."),
                io.Combo.Input(
                    "table",
                    options=list(tables()) or [_NONE],
                    tooltip="A .csv, .tsv, .jsonl or .parquet file in ComfyUI's input folder, or in a folder in it. "
                    "The files that its rows name are in the input folder too.",
                ),
                io.Int.Input(
                    "first_row", default=1, min=1, max=1_000_000, tooltip="The first row of the table that is used."
                ),
                io.Int.Input(
                    "rows", default=0, min=0, max=1_000_000, tooltip="How many rows are used; 0 means to the end."
                ),
                io.Combo.Input(
                    "bad_rows",
                    options=[LEAVE_OUT, STOP],
                    default=LEAVE_OUT,
                    tooltip="Rows that cannot be used, for instance because a file is missing: leave out names them in "
                    "the report, stop makes them an error.",
                ),
            ],
            outputs=[
                each(io.Image.Output, "image", "Portraits, for DICE-Talk Portrait."),
                each(io.Audio.Output, "audio", "Speech from start, length seconds long, for DICE-Talk Audio Features."),
                each(Emotion.Output, "emotion"),
                each(io.String.Output, "filename_prefix", "For Save Video: each video has the name of its row."),
                each(io.Int.Output, "seed"),
                each(io.Int.Output, "steps"),
                each(io.Int.Output, "short_side"),
                each(io.Boolean.Output, "crop"),
                each(io.Float.Output, "margin"),
                each(io.BoundingBox.Output, "bboxes"),
                each(io.Float.Output, "reference_scale"),
                each(io.Float.Output, "emotion_scale"),
                each(io.Float.Output, "speech_strength"),
                each(io.Float.Output, "emotion_strength"),
                io.String.Output(display_name="report", tooltip="What is used of each row, and why rows are left out."),
            ],
        )

    @classmethod
    def validate_inputs(cls, table):
        # Looked up again, since files may have come after ComfyUI started. None is a wired input, not known yet.
        return table is None or table in tables() or _no_such(table)

    @classmethod
    def fingerprint_inputs(cls, table, **_):
        """Differs once the table, a file that it names or a saved emotion changes."""
        path = tables().get(table)
        if path is None:
            return ""
        stamps = [_stamp(path), fingerprint(saved_emotions())]
        try:
            for row in read_rows(path, pattern=_OUTPUT):
                stamps += [_stamp(file) for file in _files(row.job)] if row.job else []
        except InputError:
            pass  # `execute` says what is wrong
        return digest(stamps)

    @classmethod
    def execute(cls, dicetalk, table, first_row, rows, bad_rows) -> io.NodeOutput:
        path = tables().get(table)
        if path is None:
            raise InputError(f"table: {_no_such(table)}")
        wanted = _wanted(read_rows(path, pattern=_OUTPUT), table, first_row, rows)
        emotions = emotion_library(dicetalk)
        images: dict[str, torch.Tensor] = {}  # by file: rows share them
        progress = comfy.utils.ProgressBar(len(wanted))
        given, lines, problems = [], [], []
        for row in wanted:
            comfy.model_management.throw_exception_if_processing_interrupted()
            try:
                values, note = _values(row, path.parent, emotions, images)
            except InputError as error:
                problems.append(str(error) if row.job is None else f"row {row.number}: {in_comfyui(str(error))}")
                logging.warning("DICE-Talk Job List: %s", problems[-1])
                lines.append(f"left out: {problems[-1]}")
            else:
                given.append(values)
                lines.append(f"row {row.number}: {values[3]}{note}")
            progress.update(1)
        if problems and (bad_rows == STOP or not given):
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise InputError(
                f"table: {len(problems)} of {len(wanted)} rows of {table} cannot be used: {'; '.join(problems[:3])}"
                f"{more}. Correct them{', or set bad_rows to leave out' if given else ''}."
            )
        report = "\n".join([f"{len(given)} of {len(wanted)} rows are used.", *lines])
        return io.NodeOutput(*map(list, zip(*given)), report, ui=ui.PreviewText(report))


def tables():
    """Name → path of the tables in ComfyUI's input folder and in its folders, by name."""
    root = Path(folder_paths.get_input_directory())
    found = [file for pattern in ("*", "*/*") for file in root.glob(pattern) if file.suffix.lower() in FORMATS]
    return {file.relative_to(root).as_posix(): file for file in sorted(found) if file.is_file()}


def _no_such(table):
    names = list(tables())
    found = f"found are {', '.join(names[:20])}{', …' if len(names) > 20 else ''}" if names else "none is there"
    return f"There is no table {table!r} in ComfyUI's input folder ({found}): put a {', '.join(FORMATS)} file there."


def _wanted(rows, table, first, count):
    last = max(row.number for row in rows)
    if first > last:
        raise InputError(f"first_row is {first}, and {table} has {last} rows: choose an earlier one.")
    return [row for row in rows if first <= row.number and (count == 0 or row.number < first + count)]


def _values(row, folder, emotions, images):
    """What the lists get for a row, in their order, and a remark for the report.

    Raises:
        InputError: the row cannot be used.
    """
    if row.job is None:
        raise InputError(row.problem)
    job = row.job
    if job.clip is not None:
        raise InputError(
            f"emotion is {job.emotion!r}: a clip is read by DICE-Talk Emotion From Clip, or by `dicetalk batch`."
        )
    if job.video is not None:
        raise InputError("video is given, which this node does not read: give portrait, or use `dicetalk batch`.")
    if job.script is not None:
        raise InputError("script is given: DICE-Talk Script reads one, or `dicetalk batch`.")
    for file in _files(job):
        _require_inside(file)
    emotion = resolve(read_emotion(job.emotion, emotions), emotions, job.emotion)
    box = job.face_choice
    if box is not None and not isinstance(box, tuple):
        raise InputError(f"face is {job.face}: give a box x1,y1,x2,y2, or set face of DICE-Talk Portrait.")
    if job.portrait not in images:
        images[job.portrait] = _image(job.portrait)
    unused = [name for name, usual in defaults().items() if name not in _GIVEN and getattr(job, name) != usual]
    chosen = own_settings(None, {name: getattr(job, name) for name in ("steps", "reference_scale", "emotion_scale")})
    note = f" (set in other nodes: {', '.join(unused)})" if unused else ""
    values = (
        images[job.portrait],
        _sound(job),
        emotion,
        _prefix(job.output, folder),
        job.seed,
        chosen["steps"],
        job.size,
        job.crop,
        job.margin,
        box and [{"x": box[0], "y": box[1], "width": box[2] - box[0], "height": box[3] - box[1]}],
        chosen["reference_scale"],
        chosen["emotion_scale"],
        job.speech_strength,
        job.emotion_strength,
    )
    return values, note


def _files(job: Job):
    files = [file for file in (job.portrait, job.audio) if file]
    return files + ([job.saved_emotion] if job.saved_emotion else [])


def _require_inside(file):
    """A table may come from anyone who can queue a prompt, and the machine's other files are not theirs."""
    root = os.path.abspath(folder_paths.get_input_directory())
    if is_url(file) or not Path(os.path.abspath(file)).is_relative_to(root):
        raise InputError(f"{file} is outside ComfyUI's input folder: copy it there, or link its folder.")


def _image(path):
    """An IMAGE of one picture, (1, height, width, 3) in 0..1.

    It is Load Image's, so that a clip equals the one of a graph with that node: ComfyUI and Pillow decode JPEG
    differently, most at the edges of colours. What that node cannot give is read by `load_image`: HEIC, a camera's raw
    file, the first picture of an animation, and a file that a link in the input folder leads to.
    """
    picture = load_image(path)  # it also says what is wrong with a file
    _require_memory(path, 4 * 3 * picture.width * picture.height)
    if is_still(path) and not is_heif(path) and not is_raw(path):
        nodes = importlib.import_module("nodes")  # ComfyUI's, not this package; it is there once ComfyUI runs
        root = os.path.abspath(folder_paths.get_input_directory())
        try:
            return nodes.LoadImage().load_image(os.path.relpath(os.path.abspath(path), root))[0][:1]
        except Exception as error:  # its libraries raise many kinds
            logging.info("DICE-Talk Job List: Load Image cannot read %s: %s", os.path.basename(path), error)
    return torch.from_numpy(np.array(picture, dtype=np.float32) / 255)[None]


def _sound(job):
    """The AUDIO of a row: its piece, in one channel or two."""
    from ..dicetalk.media.audio import load_sound

    sound = load_sound(job.audio, job.start, job.length)
    rate, blocks = sound.for_video()
    waveform = np.concatenate(list(blocks), axis=1)
    _require_memory(job.audio, waveform.nbytes)
    return {"waveform": torch.from_numpy(waveform)[None], "sample_rate": rate}


def _require_memory(path, size):
    if not fits(size, comfy.model_management.get_free_memory(torch.device("cpu"))):
        raise InputError(
            f"{os.path.basename(path)} does not fit into the free memory beside those of the rows before it: set rows "
            "to fewer, or use `dicetalk batch`, which keeps one clip at a time."
        )


def _prefix(output, folder):
    """The output's path without its ending, below ComfyUI's output folder: of one that is elsewhere, the name."""
    name = Path(os.path.relpath(output, folder)).with_suffix("")
    return Path(output).stem if name.is_absolute() or ".." in name.parts else name.as_posix()


def _stamp(path):
    try:
        status = os.stat(path)
    except OSError:
        return str(path)
    return str(path), status.st_size, status.st_mtime_ns
