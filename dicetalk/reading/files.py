"""A reference clip from files: a video, sound or picture file, and optionally a file of landmarks beside it."""

from pathlib import Path

from ..emotion.text import one_line
from ..errors import InputError
from .clip import FRAME_RATES, Clip, array_stream
from .faces import mediapipe_stream
from .landmarks import landmark_stream, read_landmarks
from .streams import look_into, stream_audio, stream_frames


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
        if times is None and not FRAME_RATES[0] <= rate <= FRAME_RATES[1]:
            raise InputError(
                f"{path} says that it has {rate:g} frames a second, and {landmarks} says nothing: give a CSV file with "
                "a column of times, or safetensors with fps in the metadata."
            )
        blendshapes = array_stream(values, rate) if times is None else landmark_stream(values, times)
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
