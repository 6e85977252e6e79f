"""Reference clips from files: pictures and sound as streams, and faces from landmark files or from MediaPipe."""

import csv
import math
from pathlib import Path

import numpy as np

from ..errors import InputError
from .clip import BLENDSHAPES, SAMPLE_RATE, Clip, array_stream, check_seconds
from .text import one_line

_LARGEST_LANDMARKS = 2**30
_RATES = 0.1, 1000  # frames a second that are believed
_TIMES = ("time", "seconds", "timestamp")
_PIECE = 1.0  # seconds of faces that are handed on at a time
_PATIENCE = 0.5  # seconds that a lost face is waited for


def open_clip(path, landmarks=None, face_landmarker=None):
    """The Clip of a video, sound or picture file that FFmpeg reads.

    Args:
        path: the file. Its first video and its first sound track are used.
        landmarks: a file of its blendshapes; see `read_landmarks`.
        face_landmarker: MediaPipe's model file face_landmarker.task, by which blendshapes are found in the frames. It
            needs the package mediapipe.

    Raises:
        InputError: names the file, and what is wrong with it.
    """
    path = Path(path)
    rate, seconds, has_sound = look_into(path)
    blendshapes, notes = None, tuple
    if landmarks is not None and face_landmarker is not None:
        raise InputError("Give a file of landmarks or MediaPipe's model, not both.")
    if landmarks is not None:
        values, times = read_landmarks(landmarks)
        if times is None and not rate:
            raise InputError(
                f"{landmarks} does not say its frames a second, and {path} has no pictures that would: give a CSV file "
                "with a column of times, or safetensors with fps in the metadata."
            )
        if times is None and not _RATES[0] <= rate <= _RATES[1]:
            raise InputError(
                f"{path} says that it has {rate:g} frames a second, and {landmarks} says nothing: give a CSV file with "
                "a column of times, or safetensors with fps in the metadata."
            )
        blendshapes = array_stream(values, rate) if times is None else landmark_stream(values, times)
    elif face_landmarker is not None:
        if not rate:
            raise InputError(f"{path} has no pictures in which {face_landmarker} could find a face.")
        blendshapes, notes = _mediapipe_stream(path, face_landmarker)
    return Clip(
        blendshapes=blendshapes,
        frames=(lambda every=0.0: stream_frames(path, every)) if rate else None,
        audio=(lambda: stream_audio(path)) if has_sound else None,
        seconds=seconds,
        name=one_line(path.name) or "clip",
        notes=notes,
    )


def look_into(path):
    """What a path or an open file holds: frames a second (None without pictures), seconds (None where it does not say),
    and whether there is sound."""
    with _opened(path) as container:
        video, audio = _video(container), container.streams.audio
        if video is None and not audio:
            raise InputError(
                f"{_label(path)} holds neither pictures nor sound: give a video, a sound file or a picture."
            )
        rate = float(video.average_rate or video.guessed_rate or 25) if video is not None else None
        return rate, container.duration / 1e6 if container.duration else None, bool(audio)


def _opened(source):
    import av

    from ..video import open_media

    if hasattr(source, "seek"):
        source.seek(0)
    try:
        return open_media(source)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{_label(source)} cannot be read as video, sound or picture ({reason}).") from error


def _label(source):
    return "The video" if hasattr(source, "read") else source


def _video(container):
    """The first video track that is no cover picture of a sound file."""
    import av

    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def stream_frames(source, every=0.0, start=0.0, length=math.inf):
    """Yields (seconds, (height, width, 3) uint8 RGB) of a video's frames, upright.

    Args:
        source: a path or an open file.
        every: least seconds from one frame to the next.
        start, length: the part to read, in seconds; times count from its start.

    Times increase. Where the file says none (raw H.264) or they do not (B-frames in AVI), a frame is one of the
    average rate after the one before.

    Raises:
        InputError: the video is damaged; single frames that are do not matter.
    """
    with _opened_at(source, start) as container:
        stream = _video(container)
        stream.thread_type = "AUTO"
        began = float((stream.start_time or 0) * stream.time_base)
        clock = due = -math.inf
        for frame in _decoded(container, stream, source):
            own = frame.time - began if frame.time is not None else -math.inf
            clock = own if own > clock + 1e-6 else max(clock + 1 / _rate(stream), 0.0)
            seconds = clock - start
            if seconds >= length:
                return
            if seconds >= max(due, -1e-6):
                due = seconds + every - 1e-6
                yield max(seconds, 0.0), _upright(frame)


def _opened_at(source, start):
    """A container with pictures, at `start` seconds or before; at its beginning where it cannot seek (raw H.264)."""
    import av

    container = _opened(source)
    stream = _video(container)
    try:
        if start > 0:
            container.seek(int(start / stream.time_base) + (stream.start_time or 0), stream=stream)
        return container
    except (av.error.FFmpegError, OSError):
        container.close()
        return _opened(source)


def _rate(stream):
    """A video track's frames a second, for frames without times; 25 where it says none, or what cannot be."""
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    return rate if _RATES[0] <= rate <= _RATES[1] else 25.0


def _decoded(container, stream, source):
    import av

    good = damaged = 0
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    good += 1
                    yield frame
            except av.error.FFmpegError:
                damaged += 1
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{_label(source)} is damaged ({reason}): export it again.") from error
    if damaged > good:
        raise InputError(f"{_label(source)} is damaged ({damaged} of its pieces cannot be decoded): export it again.")


def _upright(frame):
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


def stream_audio(source, start=0.0, length=math.inf):
    """Yields (n,) float32 pieces of the first sound track, mono at 16 kHz; the rest is as in `stream_frames`."""
    import soxr

    from ..media import decode_mono

    resample, seen = None, 0
    with _opened(source) as container:
        for rate, block in decode_mono(container, _label(source)):
            if resample is None:
                resample = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
                first, end = round(start * rate), (start + length) * rate
            piece = block[max(0, first - seen) : int(max(0, min(len(block), end - seen)))]
            seen += len(block)
            if len(piece):
                yield resample.resample_chunk(np.ascontiguousarray(np.nan_to_num(piece, posinf=0.0, neginf=0.0)))
            if seen >= end:
                break
    if resample is not None:
        yield resample.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


# Landmark files


def read_landmarks(path):
    """Blendshapes from a file.

    .npy: (frames, 52) numbers, columns as MediaPipe orders them (`clip.BLENDSHAPES`).
    .csv: a head with the blendshapes' names, such as jawOpen or JawOpen (Live Link Face), in any order, and perhaps a
    column time, seconds or timestamp in seconds; other columns are passed over. Empty fields mean no face.
    .safetensors: a tensor "blendshapes", (frames, 52), and in the metadata perhaps "fps" and "names", the columns'
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
        if rate is not None and not _RATES[0] <= rate <= _RATES[1]:
            raise InputError(f"fps is {rate:g} in its metadata: {_RATES[0]:g} to {_RATES[1]:g} is needed.")
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
    held = max(_PATIENCE, 2 * float(np.median(steps))) if len(steps) else _PATIENCE
    before = np.flatnonzero(steps > held + 1e-6)
    times = np.insert(times, before + 1, times[before] + held)
    values = np.insert(values, before + 1, np.nan, axis=0)

    def stream():
        for start in range(0, len(times), 1000):
            yield times[start : start + 1000], values[start : start + 1000]

    return stream


# Which face


class FaceChoice:
    """Chooses one of the faces of each frame: the largest, and then the same one for as long as it is seen.

    A face is the same when its box overlaps that of the frame before by a third of their union. One that is lost is
    waited for half a second; then the largest is taken again.
    """

    def __init__(self):
        self._several = 0
        self._box = self._seen = None

    def choose(self, seconds, boxes):
        """The number of the chosen face, None where there is none, among boxes (x1, y1, x2, y2)."""
        self._several += len(boxes) > 1
        if not boxes:
            return None
        if self._box is not None:
            overlaps = [_overlap(self._box, box) for box in boxes]
            number = int(np.argmax(overlaps))
            if overlaps[number] < 1 / 3 and seconds - self._seen < _PATIENCE:
                return None
            if overlaps[number] >= 1 / 3:
                self._box, self._seen = boxes[number], seconds
                return number
        number = max(range(len(boxes)), key=lambda each: _area(boxes[each]))
        self._box, self._seen = boxes[number], seconds
        return number

    def notes(self):
        """A sentence where there were several faces to choose from, in a list."""
        frames = f"{self._several} frames show" if self._several > 1 else "A frame shows"
        return [f"{frames} several faces; the largest was followed."] if self._several else []


def _area(box):
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _overlap(a, b):
    shared = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return shared / max(_area(a) + _area(b) - shared, 1e-9)


def faces_stream(frames):
    """`Clip.blendshapes` and `Clip.notes` of (seconds, [(box, name → value), ...]) for each frame, as `frames()` yields
    them."""
    choice = FaceChoice()

    def stream():
        nonlocal choice
        choice, times, rows = FaceChoice(), [], []
        for seconds, faces in frames():
            number = choice.choose(seconds, [box for box, _ in faces])
            values = {} if number is None else faces[number][1]
            times.append(seconds)
            rows.append([values.get(name, 0.0) if values else math.nan for name in BLENDSHAPES])
            if times[-1] - times[0] >= _PIECE:
                yield np.array(times), np.array(rows, dtype=np.float32)
                times, rows = [], []
        if times:
            yield np.array(times), np.array(rows, dtype=np.float32)

    return stream, lambda: choice.notes()


def _mediapipe_stream(path, model):
    """`Clip.blendshapes` and `Clip.notes` of a video."""
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise InputError(
            f"{model} needs the package mediapipe ({error}): install it, or give the landmarks as a file."
        ) from error
    if not Path(model).is_file():
        raise InputError(f"{model}: no such file; MediaPipe's face_landmarker.task is needed.")

    def frames():
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model)),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=4,
            output_face_blendshapes=True,
        )
        try:
            landmarker = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{model}: not a model of MediaPipe's ({' '.join(str(error).split())[:200]}).") from error
        with landmarker:
            stamp = -1
            for seconds, frame in stream_frames(path):
                stamp = max(stamp + 1, round(seconds * 1000))  # MediaPipe refuses two of the same
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame)
                found = landmarker.detect_for_video(image, stamp)
                yield (
                    seconds,
                    [
                        (_box(points), {shape.category_name: shape.score for shape in shapes})
                        for points, shapes in zip(found.face_landmarks, found.face_blendshapes)
                    ],
                )

    return faces_stream(frames)


def _box(points):
    x, y = [point.x for point in points], [point.y for point in points]
    return min(x), min(y), max(x), max(y)
