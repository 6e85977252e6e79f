"""Files of blendshapes over time, CSV, .npy or safetensors, and where in a clip they belong."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .clip import BLENDSHAPES, FRAME_RATES, PATIENCE
from .landmark_tables import read_table

_LARGEST_LANDMARKS = 2**30
_NEARLY = 0.2  # beyond 0 and 1 that trackers and artists reach
_NEUTRAL = 0.15  # MediaPipe's stays below a thousandth; in ARKit's order an eye is there, which blinks
_OFTEN = 0.005  # of the values
_APART = 0.05  # of the longer one: by how much the face's end and the clip's may differ without a word


class Landmarks(NamedTuple):
    """A face over time.

    Attributes:
        values: (rows, 52) float32, 0 to 1, in the order of BLENDSHAPES; NaN without a face.
        times: (rows,) float64 seconds, which increase; None where the file does not say.
        frames: without times, (rows,) float64 numbers of the clip's frames, which increase; None where the file does
            not say either: a row a frame.
        notes: sentences that a person should read.
    """

    values: np.ndarray
    times: np.ndarray | None
    frames: np.ndarray | None = None
    notes: tuple = ()


def read_landmarks(path):
    """The Landmarks of a file.

    .npy: (frames, 52) numbers, columns as MediaPipe orders them (`clip.BLENDSHAPES`).
    .csv: a first row with the names of the blendshapes, such as jawOpen or JawOpen (Live Link Face), in any order, and
    optionally a column time, seconds or timestamp (milliseconds where its name or its steps say so), Timecode or frame;
    other columns are passed over. Empty fields mean no face. Of action units see `landmark_tables`.
    .safetensors: a tensor "blendshapes", (frames, 52), and in the metadata optionally "fps" and "names", the columns'
    names with commas between them.
    A row of NaN is a frame without a face. Values of 0 to 100 are percent.

    Raises:
        InputError: names the file, and what is wrong with it.
    """
    path = Path(path)
    readers = {".npy": _read_npy, ".csv": read_table, ".safetensors": _read_safetensors}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: landmarks are read from {', '.join(readers)} files.")
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.stat().st_size > _LARGEST_LANDMARKS:
        raise InputError(f"{path}: too large for a file of landmarks (more than {_LARGEST_LANDMARKS // 2**20} MB).")
    try:
        names, values, times, frames, notes = readers[path.suffix.lower()](path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # the readers raise many kinds for damaged files
        raise InputError(f"{path}: cannot be read as landmarks ({' '.join(str(error).split())[:200]}).") from error
    try:
        values, more = in_range(_in_order(names, values))
        if names is BLENDSHAPES:
            _check_order(values)
        return Landmarks(values, times, frames, (*notes, *more))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _read_npy(path):
    return BLENDSHAPES, np.load(path, allow_pickle=False), None, None, ()


def _check_order(values):
    """InputError where columns without names are in another order than MediaPipe's."""
    seen = values[np.isfinite(values[:, 0])]
    if seen.size and seen[:, 0].max() > _NEUTRAL:
        raise InputError(
            f"its first column reaches {seen[:, 0].max():.2g}. In MediaPipe's order that is _neutral, which stays near "
            "0, so the columns are in another order, such as ARKit's: give a CSV file with the columns' names, or "
            "safetensors with names in the metadata."
        )


def _read_safetensors(path):
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        if "blendshapes" not in file.keys():
            raise InputError("it holds no tensor named blendshapes.")
        names = [name.strip() for name in metadata["names"].split(",")] if "names" in metadata else BLENDSHAPES
        rate = float(metadata["fps"]) if "fps" in metadata else None
        if rate is not None and not FRAME_RATES[0] <= rate <= FRAME_RATES[1]:
            raise InputError(f"fps is {rate:g} in its metadata: {FRAME_RATES[0]:g} to {FRAME_RATES[1]:g} is needed.")
        values = file.get_tensor("blendshapes")
        times = None if rate is None else np.arange(len(values)) / rate
        return names, values, times, None, ()


def _in_order(names, values):
    values = np.asarray(values)
    if values.ndim != 2 or values.shape[1] != len(names) or not len(values) or values.dtype.kind not in "fiu":
        raise InputError(f"(frames, {len(names)}) numbers are needed, not {values.dtype} of shape {values.shape}.")
    columns = {name.casefold(): column for column, name in enumerate(names)}
    missing = [name for name in BLENDSHAPES[1:] if name.casefold() not in columns]
    if missing:
        more = ", …" if len(missing) > 5 else ""
        raise InputError(f"it lacks the blendshapes {', '.join(missing[:5])}{more}.")
    result = np.zeros((len(values), len(BLENDSHAPES)), dtype=np.float32)
    for column, name in enumerate(BLENDSHAPES):
        if name.casefold() in columns:
            result[:, column] = values[:, columns[name.casefold()]]
    result[~np.isfinite(result).all(1)] = np.nan
    return result


def in_range(values):
    """Blendshapes of 0 to 1, of values that may be percent (Unity's and Maya's blend weights); and notes.

    A few values beyond 1 are what they are, the faults or the exaggerations of a tracker, and cut off.

    Raises:
        InputError: many values are outside 0 to 1 and are no percent.
    """
    seen = values[np.isfinite(values[:, 0])]
    if not seen.size:
        return values, []
    beyond = seen[(seen < -_NEARLY) | (seen > 1 + _NEARLY)]
    if beyond.size < _OFTEN * seen.size:
        return np.clip(values, 0, 1), []
    if seen.min() >= -_NEARLY * 100 and 2 < seen.max() <= 100 * (1 + _NEARLY):
        note = f"The landmarks reach {seen.max():.4g}: they were taken as percent, so divided by 100."
        return np.clip(values / 100, 0, 1), [note]
    raise InputError(
        f"its values run from {seen.min():.4g} to {seen.max():.4g}, and blendshapes are 0 to 1, or 0 to 100 percent."
    )


def landmark_stream(values, times):
    """`Clip.blendshapes` of (frames, 52) values at (frames,) seconds that increase; no face in the gaps.

    A gap is longer than half a second, and than twice the usual step, for which the row before it holds.
    """
    steps = np.diff(times)
    held = max(PATIENCE, 2 * float(np.median(steps))) if len(steps) else PATIENCE
    before = np.flatnonzero(steps > held + 1e-6)
    times = np.insert(times, before + 1, times[before] + held)
    values = np.insert(values, before + 1, np.nan, axis=0)

    def stream():
        for start in range(0, len(times), 1000):
            yield times[start : start + 1000], values[start : start + 1000]

    return stream


def placed(landmarks, what, frame_times=None, seconds=None):
    """Where in a clip the rows belong: (rows,) seconds that increase, and notes.

    Rows with times keep them; where they reach beyond the clip but last as long as it, they count from their first row.
    Rows with numbers of frames, and rows one a frame, are at those frames' times.

    Args:
        landmarks: `Landmarks`.
        what: the file, for errors and notes.
        frame_times: (frames,) seconds of the clip's pictures, None without.
        seconds: the clip's length, None where it is not known.

    Raises:
        InputError: the rows belong to another clip, or nothing says where they belong.
    """
    values, times, frames, _ = landmarks
    count = 0 if frame_times is None else len(frame_times)
    seconds = seconds if count != 1 else None  # a still holds as long as need be
    notes = []
    if times is None:
        if not count:
            raise InputError(
                f"{what} does not say its frames a second, and the clip has no pictures that would: give a CSV file "
                "with a column of times, or safetensors with fps in the metadata."
            )
        numbers = np.arange(len(values), dtype=float) if frames is None else frames
        if frames is not None and frames[0] == 1 and frames[-1] == count:
            numbers = frames - 1  # counted from 1
        times = _at_frames(numbers, frame_times)
    elif seconds and times[-1] > (1 + _APART) * seconds:
        length = times[-1] - times[0] + _step(times)
        if abs(length - seconds) <= _APART * max(length, seconds):
            notes.append(f"The times of {what} begin at {times[0]:.2f} s; its first row was put at the clip's start.")
            times = times - times[0]
        elif times[0] >= seconds:
            raise InputError(
                f"The rows of {what} are at {times[0]:.2f} to {times[-1]:.2f} s, and the clip ends at {seconds:.2f} s: "
                "they belong to another clip, or their times are wrong."
            )
    counted = count and landmarks.times is None and frames is None
    rows = f", {len(values)} rows for {count} frames" if counted else ""
    return times, notes + ends_apart(what, float(times[-1] + _step(times)), seconds, rows)


def ends_apart(what, end, seconds, rows=""):
    """A sentence, in a list, where the face's end and the clip's, None if it is not known, are too far apart."""
    if not seconds or abs(end - seconds) <= _APART * max(end, seconds):
        return []
    return [f"The face in {what} ends at {end:.2f} s, and the clip at {seconds:.2f} s{rows}."]


def _at_frames(numbers, frame_times):
    """The times of frames by their numbers, from 0; beyond the last one they continue by the usual step."""
    step, last = _step(frame_times), len(frame_times) - 1
    inside = np.clip(numbers, 0, last).astype(int)
    return frame_times[inside] + step * (numbers - inside)


def _step(times):
    """The usual step from a time to the next; 0.04 s where there is one time only."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.04
