"""A reference clip from files: a video, sound or picture file, and optionally a file of landmarks beside it."""

from pathlib import Path

from ..emotion.text import one_line
from ..errors import InputError
from .clip import Clip
from .faces import mediapipe_stream
from .landmarks import landmark_stream, placed, read_landmarks
from .streams import frame_times, look_into, stream_audio, stream_frames


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
        read = read_landmarks(landmarks)
        times, remarks = placed(read, landmarks, frame_times(path) if rate else None, seconds)
        blendshapes, notes = landmark_stream(read.values, times), lambda: [*read.notes, *remarks]
    elif face_landmarker is not None:
        if not rate:
            raise InputError(f"{path} has no pictures in which {face_landmarker} could find a face.")
        blendshapes, notes = mediapipe_stream(path, face_landmarker)
    return Clip(
        blendshapes=blendshapes,
        frames=(lambda every=0.0: stream_frames(path, every)) if rate else None,
        audio=(lambda: stream_audio(path)) if has_sound else None,
        seconds=seconds,
        name=one_line(path.name) or "clip",
        notes=notes,
    )
