"""A reference clip from files: a video, sound or picture file, and optionally a file of landmarks beside it."""

from functools import partial
from pathlib import Path

import numpy as np

from ..emotion.text import one_line
from ..errors import InputError
from ..media.image import is_still
from .clip import Clip
from .faces import mediapipe_stream
from .landmarks import landmark_stream, placed, read_landmarks
from .streams import frame_times, look_into, stream_audio, stream_frames


def open_clip(path, landmarks=None, face_landmarker=None):
    """The Clip of a video or sound file that FFmpeg reads, or of a picture as `dicetalk.media.image.load_image`.

    Args:
        path: the file. Its first video and its first sound track are used.
        landmarks: a file of its blendshapes; see `read_landmarks`.
        face_landmarker: MediaPipe's model file face_landmarker.task, by which blendshapes are found in the frames. It
            needs the package mediapipe.

    Raises:
        InputError: names the file, and what is wrong with it.
    """
    path = Path(path)
    still = is_still(path)
    rate, seconds, has_sound = (1.0, None, False) if still else look_into(path)
    frames = partial(_still, path) if still else partial(stream_frames, path)
    blendshapes, notes = None, tuple
    if landmarks is not None and face_landmarker is not None:
        raise InputError("Give a file of landmarks or MediaPipe's model, not both.")
    if landmarks is not None:
        read = read_landmarks(landmarks)
        own_times = np.zeros(1) if still else frame_times(path) if rate else None
        times, remarks = placed(read, landmarks, own_times, seconds)
        blendshapes, notes = landmark_stream(read.values, times), lambda: [*read.notes, *remarks]
    elif face_landmarker is not None:
        if not rate:
            raise InputError(f"{path} has no pictures in which {face_landmarker} could find a face.")
        blendshapes, notes = mediapipe_stream(frames, face_landmarker)
    return Clip(
        blendshapes=blendshapes,
        frames=frames if rate else None,
        audio=(lambda: stream_audio(path)) if has_sound else None,
        seconds=seconds,
        name=one_line(path.name) or "clip",
        notes=notes,
    )


def _still(path, every=0.0):
    from ..media.image import load_image

    yield 0.0, np.array(load_image(path))
