"""Tables of a face over time, as the field's tools write them: which columns are what, and when a row was seen.

Known are Live Link Face's take (Timecode, BlendShapeCount, EyeBlinkLeft …), tables of MediaPipe's blendshapes, and
tables of action units: OpenFace 2 (AU01_r, 0 to 5) and py-feat (AU01, 0 to 1).
"""

import csv
import math
import re
from collections import Counter

import numpy as np

from ..emotion.options import LONGEST
from ..errors import InputError
from .clip import BLENDSHAPES, check_seconds
from .face_actions import UNITS
from .faces import FaceChoice

# A column's name → the seconds that its unit is; None where its numbers have to tell.
_CLOCKS = {
    **dict.fromkeys(
        ("times", "timesec", "timeseconds", "seconds", "sec", "timestamps", "timestampsec", "ptstime"), 1.0
    ),
    **dict.fromkeys(("timems", "timestampms", "timemilliseconds", "milliseconds", "ms", "timestampmilliseconds"), 1e-3),
    **dict.fromkeys(("timeus", "timestampus", "microseconds"), 1e-6),
    **dict.fromkeys(("timens", "timestampns", "nanoseconds"), 1e-9),
    **dict.fromkeys(("time", "timestamp", "t", "elapsed", "elapsedtime"), None),
}
_FRAMES = ("frame", "frameindex", "frameidx", "framenumber", "framenum", "frameid", "frameno")
_FACES = ("faceid", "face", "faceindex", "identity", "personid", "trackid")
_BOXES = (("facerectx", "facerecty", "facerectwidth", "facerectheight"), ("x", "y", "width", "height"))
_TIMECODE = re.compile(r"\s*(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)\s*")
_RATES = (24, 25, 30, 48, 50, 60, 120, 1000)  # what a timecode's frames are counted at
_FAST, _SLOW = 1e-3, 5.0  # seconds from a row to the next that are believed
_DAY = 24 * 3600.0

# Action unit → blendshapes; beyond the units that emotions are told by, AU23 as AU24, and the blink.
_AU_BLENDSHAPES = {
    **UNITS,
    "23": UNITS["24"],
    "43": ("eyeBlinkLeft", "eyeBlinkRight"),
    "45": ("eyeBlinkLeft", "eyeBlinkRight"),
}
_NEEDED_UNITS = {"1", "4", "12"}
_LEAST_UNITS = 6
_INTENSITIES = 5.0  # FACS's A to E, as OpenFace writes them


def read_table(path):
    """A CSV file, with commas, semicolons or tabs between the fields.

    Returns:
        names: the blendshapes, as BLENDSHAPES spells them; values: (rows, names) float64, NaN without a face; times:
        (rows,) seconds that increase, or None; frames: (rows,) numbers of frames that increase, or None; notes.

    Raises:
        InputError: says what is wrong, without the file's name.
    """
    names, rows = _rows(path)
    plain = [_plain(name) for name in names]
    if not names:
        raise InputError("it is empty: a head and rows of numbers are needed.")
    columns, notes = _blendshape_columns(names), []
    if not columns and (units := _unit_columns(names)):
        values, wanted, notes = _from_units(units, rows)
    elif columns:
        wanted = list(columns)
        values = _numbers(rows, [columns[name] for name in wanted])
    else:
        raise InputError(
            f"its columns are neither blendshapes nor action units ({', '.join(filter(None, names[:8]))} …). Give "
            "the 52 blendshapes of MediaPipe or ARKit, one a column."
        )
    if "success" in plain:  # OpenFace's word on whether it saw the face
        values[_numbers(rows, [plain.index("success")])[:, 0] == 0] = np.nan
    clock, times = _times(names, plain, rows)
    frame = next((plain.index(name) for name in _FRAMES if name in plain), None)
    frames = _numbers(rows, [frame])[:, 0] if frame is not None else None
    if frames is not None and not (np.isfinite(frames).all() and (frames == np.rint(frames)).all()):
        raise InputError(f"its column {names[frame]} holds other than whole numbers.")
    order = times if times is not None else frames
    if order is not None:
        kept, more = _one_face(plain, rows, values, order)
        notes += more
        values = values[kept]
        times, frames = (None if each is None else each[kept] for each in (times, frames))
        order = order[kept]
        if not (np.diff(order) > 0).all():
            raise InputError(f"the times in its column {names[clock if times is not None else frame]} do not increase.")
    if times is not None:
        if len(times) and times[0] > LONGEST:  # the time of day, as a browser's Date.now() is
            times = times - times[0]
            notes.append("The landmarks' times count from long ago; the first row was put at the clip's start.")
        check_seconds(times)
    return wanted, values, times, None if times is not None else frames, notes


def _rows(path):
    """The head's names, and (line, fields) of the rows; those of a frame without a face are empty."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        head = file.readline()
        mark = max(",;\t", key=head.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=mark)
        names = [name.strip() for name in next(reader, [])]
        live_link = len(names) > 2 and _plain(names[1]) == "blendshapecount"
        rows = []
        for number, row in enumerate(reader, start=2):
            if not row:
                continue
            if live_link and len(row) == 2:  # no face at that moment
                row = row + [""] * (len(names) - 2)
            if len(row) != len(names):
                raise InputError(f"line {number} has {len(row)} fields, and the head {len(names)}.")
            rows.append((number, [field.replace(",", ".") for field in row] if mark != "," else row))
    return names, rows


def _plain(name):
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _blendshape_columns(names):
    """Blendshape → column, whichever way the names are spelled: jawOpen, JawOpen, BS_JawOpen, mouth_smile_L."""
    known = {name.casefold().strip("_"): name for name in BLENDSHAPES}
    found = {}
    for column, name in enumerate(names):
        plain = _plain(re.sub(r"[ _.]([LR])$", lambda side: {"L": "Left", "R": "Right"}[side[1]], name.strip()))
        plain = plain if plain in known else plain.removeprefix("bs")
        if plain in known:
            found.setdefault(known[plain], column)
    return found


def _numbers(rows, columns):
    """(rows, columns) float64, NaN for empty fields."""
    values = np.empty((len(rows), len(columns)))
    for place, (number, row) in enumerate(rows):
        try:
            values[place] = [float(row[column].strip() or "nan") for column in columns]
        except ValueError as error:
            raise InputError(f"line {number}: {error}.") from None
    return values


def _unit_columns(names):
    """Action unit → (column, largest value by its name); intensities before presences."""
    found = {}
    for column, name in enumerate(names):
        match = re.fullmatch(r"au[ _]?0*(\d+)(?:_?([rc]))?", name.strip().casefold())
        if match and (match[1] not in found or match[2] == "r"):
            found[match[1]] = column, _INTENSITIES if match[2] == "r" else 1.0
    return found


def _from_units(units, rows):
    used = {unit: column for unit, column in units.items() if unit in _AU_BLENDSHAPES}
    told = set(used) & set(UNITS)
    if not told >= _NEEDED_UNITS or len(told) < _LEAST_UNITS:
        raise InputError(
            f"it holds action units ({', '.join(f'AU{unit}' for unit in sorted(units, key=int))}), too few to "
            "distinguish emotions: AU1, AU4, AU12 and some more are needed. Give the 52 blendshapes, or those units."
        )
    wanted = list(dict.fromkeys(name for unit in used for name in _AU_BLENDSHAPES[unit]))
    values = np.zeros((len(rows), len(wanted)))
    for unit, (column, largest) in used.items():
        value = _numbers(rows, [column])[:, 0]
        if largest == 1 and np.nanmax(value, initial=0) > 1:
            largest = _INTENSITIES
        for name in _AU_BLENDSHAPES[unit]:
            place = wanted.index(name)
            values[:, place] = np.maximum(values[:, place], value / largest)  # NaN stays
    missing = [name for name in BLENDSHAPES[1:] if name not in wanted]
    values = np.c_[values, np.where(np.isnan(values).any(1), np.nan, 0.0)[:, None].repeat(len(missing), 1)]
    lacking = sorted(set(UNITS) - told, key=int)
    without = f", without {', '.join(f'AU{unit}' for unit in lacking)}" if lacking else ""
    return values, [*wanted, *missing], [f"The face was read from {len(told)} action units{without}."]


def _times(names, plain, rows):
    """The column of times, and the (rows,) seconds that it holds; None and None without one."""
    if "timecode" in plain:
        column = plain.index("timecode")
        return column, _timecode([(number, row[column]) for number, row in rows])
    column = next((plain.index(name) for name in _CLOCKS if name in plain), None)
    if column is None:
        return None, None
    times = _numbers(rows, [column])[:, 0]
    if not np.isfinite(times).all():
        raise InputError(f"the times in its column {names[column]} are not all numbers.")
    return column, times * (_CLOCKS[plain[column]] or _unit(times))


def _unit(times):
    """The seconds that a clock's unit is, by its usual step from a row to the next: 1, or those of ms, µs and ns."""
    steps = np.diff(np.unique(times))
    step = float(np.median(steps)) if len(steps) else 0.0
    return next((unit for unit in (1.0, 1e-3, 1e-6, 1e-9) if _FAST <= step * unit < _SLOW), 1.0)


def _timecode(fields):
    """Seconds from the first row on, of HH:MM:SS:FF.sub."""
    matches = [(number, _TIMECODE.fullmatch(field)) for number, field in fields]
    wrong = next((number for number, match in matches if match is None), None)
    if wrong is not None:
        raise InputError(f"line {wrong}: the Timecode is not of the form HH:MM:SS:FF.")
    parts = np.array([[float(part) for part in match.groups()] for _, match in matches]).reshape(-1, 4)
    if not len(parts):
        return np.zeros(0)
    whole, counted = parts[:, :3] @ [3600, 60, 1], parts[:, 3]
    whole += _DAY * np.cumsum(np.diff(whole, prepend=whole[0]) < -_DAY / 2)
    # A short take may not have counted all frames of a second: 30 or 60 are usual then.
    rates = _RATES if np.ptp(whole) >= 2 else (30, 60, 120, 1000)
    rate = next((rate for rate in rates if math.floor(counted.max()) < rate), None)
    if rate is None:
        raise InputError(f"its Timecode counts {counted.max():g} frames a second.")
    seconds = whole + counted / rate
    return np.maximum.accumulate(seconds - seconds[0])


def _one_face(plain, rows, values, order):
    """(rows,) which to keep so that there is one a moment: of several faces, the largest, or the one that is seen the
    longest; and notes."""
    same = np.flatnonzero(np.diff(order) == 0)
    kept = np.ones(len(order), bool)
    if not len(same):
        return kept, []
    face = next((plain.index(name) for name in _FACES if name in plain), None)
    box = next((names for names in _BOXES if all(name in plain for name in names)), None)
    starts = np.flatnonzero(np.diff(order, prepend=-math.inf))
    moments = np.split(np.arange(len(order)), starts[1:])
    if box is not None:
        x, y, width, height = _numbers(rows, [plain.index(name) for name in box]).T
        boxes = np.stack([x, y, x + width, y + height], axis=1)
        choice, kept[:] = FaceChoice(), False
        for moment in moments:
            seen = [row for row in moment if np.isfinite(boxes[row]).all()]
            number = choice.choose(float(moment[0]), [tuple(boxes[row]) for row in seen])
            kept[moment[0] if number is None else seen[number]] = True
            if number is None:
                values[moment[0]] = np.nan
        return kept, choice.notes()
    if face is not None:
        faces = [row[face].strip() for _, row in rows]
        ((longest, _),) = Counter(faces).most_common(1)
        kept[:] = [each == longest for each in faces]
        return kept, [f"Several faces are in the landmarks; {longest}, which is seen the longest, was followed."]
    if any(name in plain for name in _FRAMES) or "timecode" in plain:
        kept[same + 1] = False
        several = (
            "" if "timecode" in plain else "Several faces are in the landmarks; the first of each frame was taken."
        )
        return kept, [several] if several else []
    return kept, []
