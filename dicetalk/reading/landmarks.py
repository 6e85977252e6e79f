"""Files of blendshapes over time: CSV, .npy or safetensors."""

import csv
from pathlib import Path

import numpy as np

from ..errors import InputError
from .clip import BLENDSHAPES, FRAME_RATES, PATIENCE, check_seconds

_LARGEST_LANDMARKS = 2**30
_TIMES = ("time", "seconds", "timestamp")


# Landmark files


def read_landmarks(path):
    """Blendshapes from a file.

    .npy: (frames, 52) numbers, columns as MediaPipe orders them (`clip.BLENDSHAPES`).
    .csv: a first row with the blendshapes' names, such as jawOpen or JawOpen (Live Link Face), in any order, and
    optionally a column time, seconds or timestamp in seconds; other columns are passed over. Empty fields mean no face.
    .safetensors: a tensor "blendshapes", (frames, 52), and in the metadata optionally "fps" and "names", the columns'
    names with commas between them.
    A row of NaN is a frame without a face.

    Returns:
        (frames, 52) float32 in the order of BLENDSHAPES; and their (frames,) float64 seconds from the clip's start,
        which increase, None where the file does not say.

    Raises:
        InputError: names the file, and what is wrong with it.
    """
    path = Path(path)
    readers = {".npy": _read_npy, ".csv": _read_csv, ".safetensors": _read_safetensors}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: landmarks are read from {', '.join(readers)} files.")
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.stat().st_size > _LARGEST_LANDMARKS:
        raise InputError(f"{path}: too large for a file of landmarks (more than {_LARGEST_LANDMARKS // 2**20} MB).")
    try:
        names, values, times = readers[path.suffix.lower()](path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # the readers raise many kinds for damaged files
        raise InputError(f"{path}: cannot be read as landmarks ({' '.join(str(error).split())[:200]}).") from error
    try:
        return _in_order(names, values), times
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _read_npy(path):
    return BLENDSHAPES, np.load(path, allow_pickle=False), None


def _read_safetensors(path):
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        if "blendshapes" not in file.keys():
            raise InputError("it holds no tensor named blendshapes.")
        names = metadata["names"].split(",") if "names" in metadata else BLENDSHAPES
        rate = float(metadata["fps"]) if "fps" in metadata else None
        if rate is not None and not FRAME_RATES[0] <= rate <= FRAME_RATES[1]:
            raise InputError(f"fps is {rate:g} in its metadata: {FRAME_RATES[0]:g} to {FRAME_RATES[1]:g} is needed.")
        values = file.get_tensor("blendshapes")
        return [name.strip() for name in names], values, None if rate is None else np.arange(len(values)) / rate


def _read_csv(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        names = [name.strip() for name in next(rows, [])]
        lowered = [name.casefold() for name in names]
        known = {name.casefold() for name in BLENDSHAPES}
        wanted = [column for column, name in enumerate(lowered) if name in known]
        clock = next((lowered.index(name) for name in _TIMES if name in lowered), None)
        values, times = [], []
        for number, row in enumerate(rows, start=2):
            if not row:
                continue
            if len(row) != len(names):
                raise InputError(f"line {number} has {len(row)} fields, and the head {len(names)}.")
            try:
                values.append([float(row[column] or "nan") for column in wanted])
                times.append(float(row[clock]) if clock is not None else 0.0)
            except ValueError as error:
                raise InputError(f"line {number}: {error}.") from None
    times = np.array(times)
    if clock is not None:
        if not (np.diff(times) > 0).all():
            raise InputError(f"the times in its column {names[clock]} do not increase.")
        check_seconds(times)
    values = np.array(values).reshape(len(values), len(wanted))
    return [names[column] for column in wanted], values, times if clock is not None else None


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
