"""The columns of the paper's tables on any videos, by what the user supplies: a classifier of emotions, an embedding of
faces, a measure of lip sync, and features for the Fréchet distances (FID of pictures, FVD of clips), which the package
torchmetrics computes.

What is supplied as MODULE:FUNCTION is imported from where Python finds it, the current folder included, and called:

    embedding of faces     function(frames) -> (n, d)
    features of pictures   function(frames) -> (n, d)
    features of a clip     function(frames) -> (d,)
    lip sync               function(frames, fps, sound) -> a number, or name → number (such as LSE-C and LSE-D)

`frames` is (n, height, width, 3) uint8 RGB; `sound` is (samples,) float32, mono, 16 kHz.
"""

import csv
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..emotion.options import LEVELS, NAMES
from ..errors import InputError, reason
from ..reading.classifiers import Classifier, emotion_of

COLUMNS = ("video", "audio", "portrait", "emotion", "level", "real")
_VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_EVERY = 0.2  # seconds, of the frames that the classifier, the embedding and FID see


@dataclass(frozen=True)
class Video:
    """A video and what goes with it; what it lacks is None.

    Attributes:
        audio: its sound, where that is not in the video.
        portrait: the picture that it was made from.
        real: a real video, of the set that FID and FVD compare with.
    """

    video: Path
    audio: Path | None = None
    portrait: Path | None = None
    emotion: str | None = None
    level: int | None = None
    real: Path | None = None


@dataclass(frozen=True)
class Supplied:
    """What the user supplies; None leaves its columns out.

    Attributes:
        classifier: `reading.classifiers.Classifier` of images.
        identity, pictures, clips, lips: functions, see the module.
    """

    classifier: Classifier | None = None
    identity: Callable | None = None
    pictures: Callable | None = None
    clips: Callable | None = None
    lips: Callable | None = None


def find_videos(source) -> list[Video]:
    """The videos of a table, or of a folder.

    Args:
        source: a table (.csv with a head, or .jsonl) with COLUMNS, of which video is needed and paths are relative to
            it. Or a folder: each video in it, at any depth, whose emotion is named by its file's name or by a folder
            (happy/level_2/clip.mp4, clip_happy.mp4); its portrait is a picture of the same name beside it.

    Raises:
        InputError: nothing is found, or a row is not as it must be.
    """
    source = Path(source)
    found = list(_in_folder(source)) if source.is_dir() else list(_in_table(source))
    if not found:
        raise InputError(f"{source} holds no videos ({', '.join(_VIDEOS)}).")
    return found


def _in_folder(folder) -> Iterator[Video]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _VIDEOS or not path.is_file():
            continue
        parts = [path.stem, *reversed(path.relative_to(folder).parts[:-1])]
        named = [name for name in map(emotion_of, parts) if name]
        levels = [int(part[-1]) for part in parts if part.lower().startswith("level") and part[-1] in "123"]
        pictures = [path.with_suffix(suffix) for suffix in _PICTURES if path.with_suffix(suffix).is_file()]
        yield Video(
            path,
            portrait=pictures[0] if pictures else None,
            emotion=named[0] if named else None,
            level=levels[0] if levels else None,
        )


def _in_table(path) -> Iterator[Video]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = list(csv.DictReader(text.splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a folder or a table of videos ({reason(error)}).") from error
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where} is not an object.")
        row = {name: value for name, value in row.items() if value not in (None, "")}
        if unknown := sorted(str(name) for name in row if name not in COLUMNS):
            raise InputError(f"{where}: there is no column {unknown[0]!r}; there are {', '.join(COLUMNS)}.")
        if "video" not in row:
            raise InputError(f"{where}: video is missing.")
        if row.get("emotion") is not None and row["emotion"] not in NAMES:
            raise InputError(f"{where}: emotion is {row['emotion']!r}: give one of {', '.join(NAMES)}.")
        if row.get("level") is not None and str(row["level"]) not in map(str, LEVELS):
            raise InputError(f"{where}: level is {row['level']!r}: give 1, 2 or 3.")
        paths = {name: path.parent / str(row[name]) for name in ("video", "audio", "portrait", "real") if name in row}
        level = int(row["level"]) if "level" in row else None
        yield Video(**paths, emotion=row.get("emotion"), level=level)


def supplied_function(text, option):
    """The function that MODULE:FUNCTION names.

    Raises:
        InputError: there is none; `option` is how the message calls the setting.
    """
    module, _, name = text.partition(":")
    if not module or not name:
        raise InputError(f"{option} is {text}: give MODULE:FUNCTION, such as my_models:embed.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises
        raise InputError(f"{option} {text} cannot be imported ({reason(error)}).") from error
    if not callable(function):
        raise InputError(f"{option} {text} is no function.")
    return function


def measure_videos(videos, supplied: Supplied, on_video=None) -> dict[str, Any]:
    """Measure videos.

    Args:
        videos: Videos.
        supplied: Supplied; at least one of it.
        on_video: called as `on_video(done, total)`.

    Returns:
        JSON's values: `videos`, a row for each; `groups`, means over all, by emotion, and by emotion and level; `fid`
        and `fvd`, where their features are supplied and there are real videos.

    Raises:
        InputError: a file cannot be read, a function gives something else than it must, no video has what a function
            needs, or torchmetrics is missing.
    """
    if not any(vars(supplied).values()):
        raise InputError("Nothing was supplied to measure with: give --classifier, --identity, --lips or features.")
    _require_labels(videos, supplied)
    distances = {"fid": _Distance(supplied.pictures, "pictures"), "fvd": _Distance(supplied.clips, "clip")}
    rows, seen = [], set()
    for done, video in enumerate(videos, 1):
        frames, fps, few = _frames(video.video)
        rows.append(_row(video, frames, fps, few, supplied))
        for kind, distance in distances.items():
            distance.add(few if kind == "fid" else frames, real=False)
        if video.real is not None and video.real not in seen and (supplied.pictures or supplied.clips):
            seen.add(video.real)
            frames, _, few = _frames(video.real)
            for kind, distance in distances.items():
                distance.add(few if kind == "fid" else frames, real=True)
        if on_video is not None:
            on_video(done, len(videos))
    found = {"videos": rows, "groups": _groups(rows)}
    return found | {kind: value for kind, each in distances.items() if (value := each.value()) is not None}


def _require_labels(videos, supplied):
    """Something that is supplied is of use for one of the videos at least; for FVD two clips of each kind."""
    portraits, real = any(video.portrait for video in videos), {video.real for video in videos} - {None}
    for option, given, enough, need in (
        ("--classifier", supplied.classifier, any(video.emotion for video in videos), "a video with its emotion"),
        ("--identity", supplied.identity, portraits, "a video with its portrait"),
        ("--picture-features", supplied.pictures, real, "a table with real videos"),
        ("--clip-features", supplied.clips, min(len(real), len(videos)) > 1, "a table with two real videos or more"),
    ):
        if given is not None and not enough:
            raise InputError(f"{option} needs {need}, and there is none: leave it out, or add what is missing.")


def _frames(path):
    """All frames, frames a second, and those that are some time apart."""
    from ..reading.streams import look_into, stream_frames

    rate = look_into(path)[0]
    if rate is None:
        raise InputError(f"{path} has no pictures.")
    frames = np.stack([frame for _, frame in stream_frames(path)])
    return frames, rate, frames[:: max(round(_EVERY * rate), 1)]


def _row(video, frames, fps, few, supplied):
    row: dict[str, Any] = {"video": str(video.video), "emotion": video.emotion, "level": video.level}
    if supplied.classifier is not None and video.emotion is not None:
        from PIL import Image

        probabilities = supplied.classifier.faces([Image.fromarray(frame) for frame in few]).mean(0)
        row["read"] = NAMES[int(probabilities.argmax())]
        row["emotion accuracy"] = float(row["read"] == video.emotion)
    if supplied.identity is not None and video.portrait is not None:
        from ..media.image import load_image

        portrait = _array(supplied.identity(np.asarray(load_image(video.portrait))[None]), 2, "--identity")
        own = _array(supplied.identity(few), 2, "--identity")
        row["identity"] = float(np.mean(_unit(own) @ _unit(portrait)[0]))
    if supplied.lips is not None:
        from ..media.audio import load_audio

        told = supplied.lips(frames, fps, load_audio(video.audio or video.video))
        told = told if isinstance(told, dict) else {"lips": told}
        row |= {name: float(_array(value, 0, "--lips")) for name, value in told.items()}
    return row


def _array(values, dimensions, what):
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != dimensions or not np.isfinite(values).all():
        raise InputError(
            f"{what} gave an array of shape {values.shape}: {dimensions} dimensions of finite numbers are needed."
        )
    return values


def _unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _groups(rows):
    columns = [name for row in rows for name in row if name not in ("video", "emotion", "level", "read")]
    keys: dict[str, Callable] = {"all": lambda row: True}
    for name in NAMES:
        keys[name] = lambda row, name=name: row["emotion"] == name
        for level in LEVELS:
            pair = name, level
            keys[f"{name}, level {level}"] = lambda row, pair=pair: (row["emotion"], row["level"]) == pair
    groups = {}
    for title, belongs in keys.items():
        inside = [row for row in rows if belongs(row)]
        if inside:
            groups[title] = {"videos": len(inside)} | {
                name: float(np.mean([row[name] for row in inside if name in row]))
                for name in dict.fromkeys(columns)
                if any(name in row for row in inside)
            }
    return groups


class _Distance:
    """The Fréchet distance of torchmetrics between features of real and of made videos."""

    def __init__(self, features, kind):
        self._features, self._kind, self._metric, self._counts = features, kind, None, {True: 0, False: 0}

    def add(self, frames, real):
        if self._features is None:
            return
        import torch

        values = self._features(frames)
        values = (
            _array(values, 2, "--picture-features")
            if self._kind == "pictures"
            else _array(values, 1, "--clip-features")[None]
        )
        self._metric = self._metric or _frechet(values.shape[1])
        self._metric.update(torch.from_numpy(values), real=real)
        self._counts[real] += len(values)

    def value(self):
        if self._metric is None or min(self._counts.values()) < 2:
            return None
        return float(self._metric.compute())


def _frechet(width):
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise InputError(
            f'FID and FVD need the package torchmetrics ({reason(error)}): pip install "torchmetrics>=1.3".'
        ) from error
    from torch import nn

    given = nn.Identity()  # features come instead of pictures
    given.num_features = width  # type: ignore[assignment]
    return FrechetInceptionDistance(feature=given)


def markdown(found) -> str:
    """What `measure_videos` gives, as Markdown."""
    columns = list(dict.fromkeys(name for group in found["groups"].values() for name in group))
    lines = ["| videos of | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for title, group in found["groups"].items():
        cells = [_shown(name, group[name]) if name in group else "" for name in columns]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    for kind in ("fid", "fvd"):
        if kind in found:
            lines += ["", f"{kind.upper()}: {found[kind]:.2f}, by the features supplied"]
    return "\n".join(lines)


def _shown(name, value):
    if name == "videos":
        return str(value)
    return f"{value:.1%}" if name == "emotion accuracy" else f"{value:.3f}"
