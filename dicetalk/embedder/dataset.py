"""Recordings by actor, emotion, level and clip; their features, computed once and kept; and clips to train with.

Folders that are understood, side by side too; the clip's files share a name:

    ACTOR/EMOTION/LEVEL/CLIP.mp4                 video with or without sound
    ACTOR/EMOTION/LEVEL/CLIP.wav                 sound (which goes before the video's own)
    ACTOR/EMOTION/LEVEL/CLIP.csv                 blendshapes (`dicetalk.reading.landmarks.read_landmarks`)
    ACTOR/video/VIEW/EMOTION/LEVEL/CLIP.mp4      the same as MEAD has it (Wang et al. 2020): M003/video/front/angry/…,
    ACTOR/audio/EMOTION/LEVEL/CLIP.m4a           M003/audio/angry/level_1/001.m4a
    ACTOR/landmarks/EMOTION/LEVEL/CLIP.csv       and blendshapes of the same view
"""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..emotion.options import NAMES
from ..errors import InputError
from ..files import write_errors, written_beside
from .features import whole

KINDS = {
    **dict.fromkeys((".mp4", ".mov", ".mkv", ".avi", ".webm"), "video"),
    **dict.fromkeys((".wav", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".aac"), "audio"),
    **dict.fromkeys((".csv", ".npy", ".safetensors"), "landmarks"),
}
CACHE = "dicetalk-features"
_VERSION = "3"
_DEPTH = 5  # folders below the recordings' own, at most


class CacheError(InputError):
    """Features cannot be kept where they should be, whatever recording they are of."""


@dataclass(frozen=True)
class Recording:
    """A clip's files and what they are labelled with; files that it lacks are None."""

    actor: str
    emotion: str
    level: str
    name: str
    video: Path | None = None
    audio: Path | None = None
    landmarks: Path | None = None

    def __str__(self):
        return f"{self.actor}/{self.emotion}/{self.level}/{self.name}"


def find_recordings(folder, view="front"):
    """All recordings in a folder, by name.

    Args:
        folder: laid out as this module says.
        view: which of MEAD's cameras.

    Raises:
        InputError: no folder, nothing in it that fits, or an emotion that is none of NAMES.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name the one that holds the actors' folders.")
    found = {}
    for path in sorted(_files(folder)):
        kind = KINDS.get(path.suffix.lower())
        place = path.relative_to(folder).parts
        if kind is None or path.name.startswith("."):
            continue
        actor, *between, emotion, level, _ = place if len(place) >= 4 else (None,) * 4
        if actor is None or between not in ([], ["audio"], ["landmarks"], ["video", view]):
            continue
        if emotion not in NAMES:
            raise InputError(f"{path}: the emotion's folder is {emotion!r}, and must be one of {', '.join(NAMES)}.")
        key = actor, emotion, level, path.stem
        found[key] = replace(found.get(key, Recording(*key)), **{kind: path})
    if not found:
        raise InputError(
            f"{folder} holds no recordings as ACTOR/EMOTION/LEVEL/CLIP.mp4, or as "
            f"ACTOR/video/{view}/EMOTION/LEVEL/CLIP.mp4."
        )
    return [found[key] for key in sorted(found)]


def _files(folder):
    """Paths of the files below a folder and the folders that it links to, as deep as recordings are."""
    for at, folders, names in os.walk(folder, followlinks=True):
        depth = len(Path(at).relative_to(folder).parts)
        folders[:] = [name for name in folders if depth < _DEPTH and (depth or name != CACHE)]
        yield from (Path(at, name) for name in names)


def extract(recording, cache, encoder, digest, face_landmarker=None):
    """Compute a recording's features, unless they are there already, and keep them.

    Args:
        recording: Recording.
        cache: folder to keep them in; one file per recording.
        encoder, digest: Whisper's encoder, and `features.whisper_digest` of it.
        face_landmarker: MediaPipe's model file; without it, faces come from landmark files alone.

    Returns:
        (file, whether it was computed now).

    Raises:
        CacheError: what is in the file's place are no features, or they cannot be written there.
        InputError: a file of the recording cannot be read.
    """
    path, wanted = _place(recording, cache), _wanted(recording, digest, face_landmarker)
    there = _made_from(path)
    if there == wanted:
        return path, False
    if there is None and os.path.lexists(path):
        raise CacheError(
            f"{path} is there, and holds no features that this command wrote: remove it, or name another --cache."
        )
    values = whole(open_recording(recording, face_landmarker), encoder)
    names = ("visual", "visual_mask", "audio", "audio_mask")
    tensors = {
        name: value.bool() if name.endswith("mask") else value.half().contiguous() for name, value in zip(names, values)
    }
    try:
        with written_beside(path) as part, write_errors(path):
            part.write_bytes(save(tensors, {"made_from": wanted}))
    except InputError as error:
        raise CacheError(f"{error} Put that right, or name another --cache.") from error
    return path, True


def extracted(recording, cache, digest, face_landmarker=None):
    """The file of a recording's features; None where there is none that was made from what is there now."""
    path = _place(recording, cache)
    try:
        return path if _made_from(path) == _wanted(recording, digest, face_landmarker) else None
    except InputError:
        return None


def _place(recording, cache):
    return Path(cache) / recording.actor / recording.emotion / recording.level / f"{recording.name}.safetensors"


def _wanted(recording, digest, face_landmarker):
    """What the features of a recording are made from, as one text."""
    sources = {kind: getattr(recording, kind) for kind in ("video", "audio", "landmarks")}
    made_from = {kind: _stamp(source) for kind, source in sources.items() if source is not None}
    made_from["blendshapes"] = Path(face_landmarker).name if face_landmarker and not recording.landmarks else "file"
    return json.dumps({"version": _VERSION, "whisper": digest, **made_from}, sort_keys=True)


def open_recording(recording, face_landmarker=None):
    """The Clip of a recording: its own sound file before the video's sound."""
    from ..reading.clip import Clip
    from ..reading.files import open_clip
    from ..reading.landmarks import landmark_stream, read_landmarks

    clip = Clip()
    if recording.video is not None:
        model = face_landmarker if recording.landmarks is None else None
        clip = open_clip(recording.video, recording.landmarks, model)
    elif recording.landmarks is not None:
        values, times, *_ = read_landmarks(recording.landmarks)
        if times is None:
            raise InputError(
                f"{recording.landmarks} does not say its frames a second, and there is no video that would."
            )
        clip = Clip(blendshapes=landmark_stream(values, times))
    if recording.audio is not None:
        clip = replace(clip, audio=open_clip(recording.audio).audio)
    return clip


def _stamp(path):
    try:
        status = path.stat()
    except OSError as error:
        broken = "a link that leads nowhere" if path.is_symlink() else error.strerror or error
        raise InputError(f"{path}: cannot be read ({broken}).") from error
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def _made_from(path):
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("made_from")
    except (SafetensorError, OSError):
        return None


class Clips(torch.utils.data.Dataset):
    """Labelled clips to train or to test with.

    Attributes:
        emotions: (clips,) numbers of the emotions.
        actors: (clips,) numbers of the actors, from 0 on.
        names: the clips' names.
    """

    def __init__(self, emotions, actors, names):
        self.emotions, self.names = torch.as_tensor(emotions), list(names)
        self.actors = torch.unique(torch.as_tensor(actors), return_inverse=True)[1]

    def __len__(self):
        return len(self.names)

    def fingerprint(self):
        """A text that is another for other features."""
        raise NotImplementedError

    def __getitem__(self, number):
        """visual, visual_mask, audio, audio_mask of one clip, as `features.whole` gives them."""
        raise NotImplementedError


class KeptClips(Clips):
    """Clips whose features were kept in files by `extract`."""

    def __init__(self, files, emotions, actors, names):
        super().__init__(emotions, actors, names)
        self._files = list(files)

    def fingerprint(self):
        return hashlib.sha256(json.dumps([_made_from(file) for file in self._files]).encode()).hexdigest()[:16]

    def __getitem__(self, number):
        try:
            with safe_open(self._files[number], framework="pt") as file:
                visual, audio = file.get_tensor("visual").float(), file.get_tensor("audio").float()
                return visual, file.get_tensor("visual_mask"), audio, file.get_tensor("audio_mask")
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self._files[number]}: cannot be read ({error}); remove it and start again.") from error


class HeldClips(Clips):
    """Clips of one length, held in memory."""

    def __init__(self, clips):
        """clips: a dictionary as `synthetic.synthetic_clips` gives it."""
        super().__init__(clips["emotion"], clips["actor"], map(str, range(len(clips["emotion"]))))
        self._parts = tuple(clips[name] for name in ("visual", "visual_mask", "audio", "audio_mask"))

    def fingerprint(self):
        content = hashlib.sha256()
        for part in self._parts:
            content.update(part.contiguous().numpy().tobytes())
        return content.hexdigest()[:16]

    def __getitem__(self, number):
        return tuple(part[number] for part in self._parts)


def batch_of(clips, numbers, tokens, generator=None):
    """Clips as one batch.

    Args:
        clips: Clips.
        numbers: which.
        tokens: longer clips are cut to so many tokens; shorter ones are filled up and masked.
        generator: a torch.Generator that says where a cut begins; the middle without it.

    Returns:
        visual, visual_mask, audio, audio_mask, as `EmotionEmbedder` takes them, and emotions and actors.
    """
    cut = []
    for number in numbers:
        clip = clips[int(number)]
        spare = len(clip[1]) - tokens
        if spare > 0:
            first = spare // 2
            if generator is not None:
                first = int(torch.randint(spare + 1, (), generator=generator))
            clip = tuple(part[first : first + tokens] for part in clip)
        cut.append(clip)
    parts = tuple(torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in zip(*cut))
    return *parts, clips.emotions[numbers], clips.actors[numbers]
