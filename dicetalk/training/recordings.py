"""Recordings to prepare, with their labels: from a manifest, or from the names of MEAD, RAVDESS and CREMA-D.

A manifest is CSV with a head, or JSONL; each row is a recording, and paths are relative to the manifest:

    video       a video, or a folder of pictures named so that they sort in order
    audio       its sound; the video's own where empty
    emotion     one of the eight; empty where it is not known, which `distill` alone can use
    level       1 to 3, or empty where it is not known
    person      who acts
    split       train (where empty), or whatever it is called
    landmarks   a file of blendshapes (`dicetalk.reading.landmarks`); may be empty
    face_box    x1,y1,x2,y2 in pixels, hairline to chin; found where empty (JSONL: a list of four numbers)
    fps         of a folder of pictures (25 where empty)
    name        of the recording; the video's path where empty
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, reason
from .labels import UNKNOWN, read_emotion, read_level

_COLUMNS = ("video", "audio", "emotion", "level", "person", "split", "landmarks", "face_box", "fps", "name")
_NEEDED = ("video", "person")
_VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".flv")
LAYOUTS = ("mead", "ravdess", "crema-d")

# RAVDESS (Livingstone and Russo 2018): modality-channel-emotion-intensity-statement-repetition-actor. Calm is none of
# the eight. Its normal and strong intensity are taken for levels 2 and 3, which is a choice.
_RAVDESS = dict(
    zip(("01", "03", "04", "05", "06", "07", "08"), "neutral happy sad angry fear disgusted surprised".split())
)
_RAVDESS_LEVELS = {"01": 2, "02": 3}
# CREMA-D (Cao et al. 2014): actor_sentence_emotion_level.
_CREMA = {"ANG": "angry", "DIS": "disgusted", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_CREMA_LEVELS = {"LO": 1, "MD": 2, "HI": 3, "XX": UNKNOWN, "X": UNKNOWN}


@dataclass(frozen=True)
class Source:
    """A recording's files and labels; what it lacks is None, and an emotion that is not known is ""."""

    name: str
    video: Path
    emotion: str
    person: str
    level: int = UNKNOWN
    split: str = "train"
    audio: Path | None = None
    landmarks: Path | None = None
    face_box: tuple[float, ...] | None = None
    fps: float = 25.0


def read_manifest(path) -> list[Source]:
    """The recordings of a manifest; see the module.

    Raises:
        InputError: it cannot be read, or a row is not as it must be; names the row.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = list(csv.DictReader(text.splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a manifest ({reason(error)}).") from error
    if not rows:
        raise InputError(f"{path} lists no recordings.")
    sources = [_source(row, path, f"{path}, row {number}") for number, row in enumerate(rows, 1)]
    seen = set()
    for source in sources:
        if source.name in seen:
            raise InputError(f"{path}: two recordings are named {source.name}; give them different names.")
        seen.add(source.name)
    return sources


def _source(row, manifest, where):
    if not isinstance(row, dict):
        raise InputError(f"{where} is not an object.")
    row = {name: value for name, value in row.items() if value not in (None, "")}
    if unknown := sorted(str(name) for name in row if name not in _COLUMNS):
        raise InputError(f"{where}: there is no column {unknown[0]!r}; there are {', '.join(_COLUMNS)}.")
    for name in _NEEDED:
        if name not in row:
            raise InputError(f"{where}: {name} is missing.")

    def file(name):
        return None if name not in row else manifest.parent / str(row[name])

    try:
        box = row.get("face_box")
        box = None if box is None else tuple(map(float, box.split(",") if isinstance(box, str) else box))
        fps = float(row.get("fps", 25))
        if not fps > 0:
            raise ValueError("fps must be more than 0")
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: face_box must be x1,y1,x2,y2 and fps a number ({reason(error)}).") from error
    return Source(
        name=str(row.get("name", row["video"])),
        video=file("video"),
        emotion=read_emotion(row["emotion"], where) if "emotion" in row else "",
        person=str(row["person"]),
        level=read_level(row.get("level"), where),
        split=str(row.get("split", "train")),
        audio=file("audio"),
        landmarks=file("landmarks"),
        face_box=box,
        fps=fps,
    )


def find_sources(folder, layout, view="front") -> list[Source]:
    """The recordings of a data set's folder, all of the split "train".

    Args:
        folder: of MEAD (ACTOR/video/VIEW/EMOTION/LEVEL/CLIP.mp4 and its sound, or ACTOR/EMOTION/LEVEL/CLIP.mp4), or
            where files named as RAVDESS's or CREMA-D's are, at any depth. Of RAVDESS those with pictures and sound are
            taken, and none that are calm.
        layout: one of LAYOUTS.
        view: which of MEAD's cameras.

    Raises:
        InputError: no folder, or nothing in it that fits.
    """
    folder = Path(folder)
    if layout == "mead":
        from ..embedder.dataset import find_recordings

        found = [
            Source(
                name=str(each),
                video=each.video,
                emotion=each.emotion,
                person=each.actor,
                level=read_level(each.level, str(each)),
                audio=each.audio,
                landmarks=each.landmarks,
            )
            for each in find_recordings(folder, view)
            if each.video is not None
        ]
    else:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: name the one that holds the recordings.")
        label = _ravdess if layout == "ravdess" else _crema
        found = []
        for path in sorted(folder.rglob("*")):
            told = label(path.stem) if path.suffix.lower() in _VIDEOS else None
            if told is not None:
                emotion, level, person = told
                found.append(Source(path.relative_to(folder).as_posix(), path, emotion, person, level))
    if not found:
        raise InputError(f"{folder} holds no recordings named as {layout}'s are.")
    return found


def _ravdess(stem):
    """Emotion, level, person of a file's name, or None."""
    parts = stem.split("-")
    if len(parts) != 7 or parts[0] != "01" or parts[2] not in _RAVDESS or parts[3] not in _RAVDESS_LEVELS:
        return None
    return _RAVDESS[parts[2]], _RAVDESS_LEVELS[parts[3]], f"Actor_{parts[6]}"


def _crema(stem):
    parts = stem.split("_")
    if len(parts) != 4 or parts[2] not in _CREMA or parts[3] not in _CREMA_LEVELS:
        return None
    return _CREMA[parts[2]], _CREMA_LEVELS[parts[3]], parts[0]
