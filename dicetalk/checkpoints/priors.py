"""Emotion priors: readers for small files that may come from anywhere.

The published priors (folder ``examples/emo`` of the authors' repository) are .npy files, each a 0-d object array that
pickles ``{"mu": float32 (1, 256)}``. `pickled_arrays` reads them without unpickling.
"""

import hashlib
import io
import os
import re
from pathlib import Path

import numpy as np

from ..errors import InputError
from .pickled_arrays import LARGEST_FILE, Pickle, Unfit, arrays_of, float_array

EMOTION_DIM = 256
_OTHER_FILE = re.compile(r"\S.*\.(npz|pt|pth|ckpt|bin|pkl|json|ya?ml|txt|csv)", re.IGNORECASE)

_REMEDY = "The published priors come with `python -m dicetalk download --only emotions`."


def read_prior(path) -> np.ndarray:
    """The mean of an emotion: (256,) float32, from a .npy or .safetensors file. Errors as `read_gaussian`."""
    return read_gaussian(path)[0]


def read_gaussian(path) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean and deviation of an emotion, from a file; nothing that the file asks for is run.

    Args:
        path: .npy (the published form, or a plain float array) or .safetensors with "mu" or "mean", and optionally
            "deviation". Arrays of shape (256,) or (1, 256).

    Returns:
        (256,) float32 each; the deviation is None where the file gives none.

    Raises:
        InputError: missing, too large, damaged, of another form or shape, not finite, or a negative deviation.
    """
    path = Path(path)
    try:
        return _gaussian(_arrays(_bytes(path)))
    except InputError:
        raise
    except Unfit as error:
        raise InputError(f"{path} is no emotion prior: {error}. {_REMEDY}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}). {_REMEDY}") from None


def prior_files(folder) -> dict[str, Path]:
    """Name → file of the emotions in a folder, by name; of two files of one name, the safetensors one."""
    try:
        paths = sorted(Path(folder).iterdir())
    except OSError as error:
        raise InputError(
            f"The folder of emotions {folder} cannot be read ({error.strerror or error}). {_REMEDY}"
        ) from None
    ordered = sorted(paths, key=lambda path: (path.stem, path.suffix != ".npy"))
    return {path.stem: path for path in ordered if path.suffix in (".npy", ".safetensors") and path.is_file()}


def load_priors(folder) -> dict:
    """Name → emotion (`dicetalk.emotion.Emotion`, or whatever was saved) of every emotion file in a folder.

    Raises:
        InputError: the folder cannot be read, holds no emotion, or a file in it is no emotion (as `load_prior`).
    """
    files = prior_files(folder)
    if not files:
        raise InputError(f"{folder} holds no emotion (.npy or .safetensors). {_REMEDY}")
    return {name: load_prior(path) for name, path in files.items()}


def load_prior(path):
    """The emotion of one file, named after the file.

    A saved emotion (`dicetalk.emotion.save_emotion`) keeps its provenance; another file's is its name and SHA-256.

    Raises:
        InputError: as `read_gaussian`; or the file is named as one of the eight, with which others are compared, and
            holds a timeline or a mix by tokens.
    """
    from ..emotion.files import load_emotion
    from ..emotion.options import NAMES
    from ..emotion.text import one_line
    from ..emotion.value import Emotion

    path = Path(path)
    if _is_saved_emotion(path):
        saved = load_emotion(path)
        if path.stem in NAMES and not isinstance(saved, Emotion):
            raise InputError(
                f"{path} is no emotion prior: it holds a timeline or a mix by tokens, and {path.stem}, one of the "
                f"eight, is a single emotion. Give the file another name. {_REMEDY}"
            )
        return saved.renamed(one_line(path.stem))
    mean, deviation = read_gaussian(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Emotion(mean, deviation, one_line(path.stem), provenance=f"{one_line(path.name)} sha256:{digest}")


def read_emotion(argument, names=None):
    """What a person gave for an emotion: as `dicetalk.emotion.read_argument`, or the path of a .npy file, such as the
    authors' happy.npy.

    Returns:
        A syntax tree, or the loaded value: `dicetalk.emotion.resolve` takes both.
    """
    from ..emotion.text import read_argument

    path = str(argument).strip()
    if _OTHER_FILE.fullmatch(path):
        raise InputError(
            f"{path} is no emotion: a file of one ends in .npy or .safetensors. Give such a file, or text such as "
            "happy:1.3."
        )
    return load_prior(path) if path.lower().endswith(".npy") else read_argument(argument, names)


def _is_saved_emotion(path):
    from safetensors import SafetensorError, safe_open

    from ..emotion.files import FORMAT, MAX_HEADER, header_size

    if path.suffix != ".safetensors":
        return False
    try:
        if header_size(path) > MAX_HEADER:
            return False
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False  # the reader that follows says what is wrong


def _bytes(path) -> bytes:
    if not os.path.isfile(path):
        raise FileNotFoundError(2, "no such file")
    with open(path, "rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if not data:
        raise Unfit("it is empty")
    if len(data) > LARGEST_FILE:
        raise Unfit(f"it is larger than {LARGEST_FILE // 1024} KiB")
    return data


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    if data.startswith(b"\x93NUMPY"):
        return _npy_arrays(data)
    if data[8:9] == b"{":
        return _safetensors_arrays(data)
    raise Unfit("it is neither a .npy nor a safetensors file")


def _safetensors_arrays(data):
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unfit(f"it is damaged, or of a type that emotions do not have ({error})") from None


def _npy_arrays(data):
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read_header(stream)
    except Exception:  # NumPy parses the header as Python literals, and fails in many ways on hostile ones
        raise Unfit("its .npy header is damaged") from None
    rest = data[stream.tell() :]
    if dtype.hasobject:
        if shape != () or dtype != np.dtype(object):
            raise Unfit("it holds other objects than the one dictionary of a published prior")
        return arrays_of(Pickle(rest).value())
    return {"mean": float_array(dtype.str, shape, fortran, rest)}


def _gaussian(arrays):
    known = {"mu", "mean", "deviation"}
    mean = [name for name in ("mean", "mu") if name in arrays]
    if len(mean) != 1 or set(arrays) - known:
        names = ", ".join(sorted(repr(str(name))[:40] for name in arrays)[:5]) or "nothing"
        raise Unfit(f'it must hold "mu" or "mean", and may hold "deviation", but holds {names}')
    vectors = {name: _vector(name, array) for name, array in arrays.items()}
    deviation = vectors.get("deviation")
    if deviation is not None and (deviation < 0).any():
        raise Unfit("its deviation has negative numbers")
    return vectors[mean[0]], deviation


def _vector(name, array) -> np.ndarray:
    if array.shape not in ((EMOTION_DIM,), (1, EMOTION_DIM)):
        raise Unfit(f"{name!r} has shape {array.shape} instead of ({EMOTION_DIM},) or (1, {EMOTION_DIM})")
    if array.dtype.kind != "f":
        raise Unfit(f"{name!r} holds {array.dtype} instead of floating-point numbers")
    with np.errstate(over="ignore"):
        vector = array.reshape(EMOTION_DIM).astype(np.float32)
    if not np.isfinite(vector).all():
        raise Unfit(f"{name!r} holds numbers that are not finite (NaN or infinity)")
    return vector
