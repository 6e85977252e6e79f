"""Saved emotions: safetensors files with readable metadata, and the folder that holds them.

A file holds two tensors, `mean` and `deviation`, each (rows, 256) float32, and in its metadata `format`
("dicetalk-emotion"), `version`, and `emotion`: JSON that takes the rows one after the other. Loading reads numbers and
text, and executes nothing.
"""

import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import InputError
from ..files import written_beside
from .options import NAMES, SUFFIX, BankOptions
from .timeline import EmotionTimeline, TimelineKey
from .value import DIMENSION, Emotion, TokenMix

FORMAT, VERSION = "dicetalk-emotion", "1"
MAX_BYTES = 64 * 2**20
MAX_HEADER = 4 * 2**20  # enough for some ten thousand keys; parsed, a header takes many times its size
_SAFE_NAME = re.compile(r"[\w(][\w .,()+-]*[\w)+]|\w")
_MAX_NAME = 200  # bytes in UTF-8; file systems take 255
_DEVICE_NAMES = re.compile(r"(con|prn|aux|nul|(com|lpt)[\d¹²³]) *(\..*)?", re.IGNORECASE)  # of Windows


def save_emotion(emotion, path):
    """Save an Emotion, TokenMix or EmotionTimeline; the file is written beside and renamed.

    Args:
        emotion: the value.
        path: where to; it ends in .safetensors. Missing folders are made.

    Raises:
        InputError: for another ending, or when the file cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: give a saved emotion a name that ends in {SUFFIX}.")
    rows = []
    record = _record(emotion, rows)
    tensors = {name: torch.stack([getattr(row, name) for row in rows]) for name in ("mean", "deviation")}
    metadata = {"format": FORMAT, "version": VERSION, "emotion": json.dumps(record)}
    content = save(tensors, metadata)
    if len(content) > MAX_BYTES or int.from_bytes(content[:8], "little") > MAX_HEADER:
        raise InputError(
            f"{path}: too large for a saved emotion (at most {MAX_BYTES // 2**20} MB, {MAX_HEADER // 2**20} MB of them "
            "text); use fewer keys."
        )
    try:
        with written_beside(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error


def load_emotion(path):
    """Load what `save_emotion` wrote: an Emotion, TokenMix or EmotionTimeline.

    Raises:
        InputError: names the file, and what is wrong with it.
    """
    try:
        return emotion_from_content(*_read(Path(path)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable safetensors file ({reason}).") from error


def _read(path):
    """Metadata and tensors of a file that claims to be a saved emotion and has the tensors of one."""
    if not path.is_file():
        raise InputError("no such file.")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"too large for a saved emotion (more than {MAX_BYTES // 2**20} MB).")
    if header_size(path) > MAX_HEADER:
        raise InputError(f"not a readable safetensors file (its header claims more than {MAX_HEADER // 2**20} MB).")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise InputError(f"not a saved emotion; its metadata does not say {FORMAT}.")
        if metadata.get("version") != VERSION:
            raise InputError(f"saved by another version; this one reads version {VERSION}.")
        slices = {name: file.get_slice(name) for name in file.keys()}
        _check_shapes({name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}, "F32")
        return metadata, {name: file.get_tensor(name) for name in slices}


def header_size(path) -> int:
    """How many bytes of text a safetensors file claims to start with."""
    with open(path, "rb") as file:
        return int.from_bytes(file.read(8), "little")


def emotion_from_content(metadata, tensors):
    """The value that a file's metadata (text → text) and tensors (name → tensor) describe.

    Raises:
        InputError: what is wrong with them; nothing else, whatever they hold.
    """
    try:
        record = json.loads(metadata.get("emotion", ""))
    except (ValueError, RecursionError) as error:
        raise InputError("its metadata holds no readable description of an emotion.") from error
    _check_shapes({name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}, torch.float32)
    rows = iter(zip(tensors["mean"], tensors["deviation"], strict=True))
    try:
        value = _value(record, rows)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError("its metadata's description of the emotion is not complete.") from error
    if next(rows, None) is not None:
        raise InputError("it holds more numbers than its metadata describes.")
    return value


def check_name(name):
    """`name` when it can be a saved emotion's name, that is a file's, on every system; else InputError."""
    fits = isinstance(name, str) and _SAFE_NAME.fullmatch(name) and len(name.encode()) <= _MAX_NAME
    if not fits or _DEVICE_NAMES.fullmatch(name):
        raise InputError(
            f"{reprlib.repr(name)} cannot name a saved emotion: use letters, digits, spaces and _ - + . , ( ), "
            f"{_MAX_NAME} at most, and start with a letter or digit."
        )
    if name in NAMES:
        raise InputError(f"{name!r} is one of the presets: save the emotion under another name.")
    return name


def saved_path(folder, name):
    """The file of the saved emotion of that name, there or not; never outside the folder."""
    folder = Path(folder)
    path = folder / (check_name(name) + SUFFIX)
    try:
        inside = path.resolve().parent == folder.resolve()
    except RuntimeError:  # a link to itself, before Python 3.13
        inside = False
    if not inside:
        raise InputError(f"The saved emotion {name!r} is a link that leads out of {folder}; put the file itself there.")
    return path


def saved_names(folder):
    """The names of a folder's saved emotions, sorted; files whose names could not have been saved are passed over."""
    names = []
    for path in Path(folder).glob("*" + SUFFIX):
        try:
            if saved_path(folder, path.stem).is_file():
                names.append(path.stem)
        except (InputError, OSError):
            continue
    return sorted(names)


class EmotionLibrary(Mapping):
    """Name → emotion: presets, and the saved ones of folders, which are loaded when asked for.

    Args:
        priors: name → Emotion; they win over saved ones of the same name.
        folders: folders of saved emotions; earlier ones win.
    """

    def __init__(self, priors, folders=()):
        self._priors = dict(priors)
        self._saved = {}
        for folder in reversed(list(folders)):
            self._saved.update({name: folder for name in saved_names(folder)})

    def __getitem__(self, name):
        if name in self._priors:
            return self._priors[name]
        return load_emotion(saved_path(self._saved[name], name)).renamed(name)

    def __contains__(self, name):
        return name in self._priors or name in self._saved

    def __iter__(self):
        return iter({**self._priors, **self._saved})

    def __len__(self):
        return len({**self._priors, **self._saved})


def _record(emotion, rows):
    labels = {"name": emotion.name, "provenance": emotion.provenance}
    if isinstance(emotion, EmotionTimeline):
        keys = [{"time": k.time, "easing": k.easing, "emotion": _record(k.emotion, rows)} for k in emotion.keys]
        return {"kind": "timeline", **labels, "keys": keys}
    if isinstance(emotion, TokenMix):
        parts = [{"weight": weight, "emotion": _record(part, rows)} for weight, part in emotion.parts]
        return {"kind": "token mix", **labels, "parts": parts}
    rows.append(emotion)
    bank = {"mode": emotion.bank.mode, "top_k": emotion.bank.top_k, "temperature": emotion.bank.temperature}
    return {"kind": "emotion", **labels, "bank": bank}


def _check_shapes(shapes, float32):
    rows = shapes["mean"][0][0] if "mean" in shapes and shapes["mean"][0] else 0
    expected = ((rows, DIMENSION), float32)
    if shapes != {"mean": expected, "deviation": expected}:
        raise InputError(f"it must hold mean and deviation, each (rows, {DIMENSION}) float32, and nothing else.")


def _value(record, rows, kinds=("timeline", "token mix", "emotion")):
    kind = record["kind"]
    if kind not in kinds:
        raise InputError(f"its metadata describes {reprlib.repr(kind)} where one of {', '.join(kinds)} belongs.")
    labels = {"name": record["name"], "provenance": record["provenance"]}
    if kind == "timeline":
        keys = [TimelineKey(k["time"], _value(k["emotion"], rows, kinds[1:]), k["easing"]) for k in record["keys"]]
        return EmotionTimeline(tuple(keys), **labels)
    if kind == "token mix":
        parts = [(part["weight"], _value(part["emotion"], rows, kinds[-1:])) for part in record["parts"]]
        return TokenMix(tuple(parts), **labels)
    bank = BankOptions(*(record["bank"][field] for field in ("mode", "top_k", "temperature")))
    row = next(rows, None)
    if row is None:
        raise InputError("its metadata describes more emotions than it holds.")
    return Emotion(*row, bank=bank, **labels)
