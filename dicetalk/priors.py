"""Emotion priors: readers for small files that may come from anywhere.

The published priors (folder ``examples/emo`` of the authors' repository) are .npy files, each a 0-d object array that
pickles ``{"mu": float32 (1, 256)}``. They are read here without unpickling: the pickle's instructions are followed on
inert values, so that what it asks to import or to call is only ever compared with the few names that such a file has.
"""

import hashlib
import io
import os
import pickletools
from pathlib import Path

import numpy as np

from .errors import InputError

EMOTION_DIM = 256
LARGEST_FILE = 64 * 1024  # bytes; a published prior has 1,403

_REMEDY = "The published priors come with `python -m dicetalk download --only emotions`."
_FLOAT_TYPES = {"f2", "f4", "f8"}
_BYTE_ORDERS = {"<", ">", "="}
_RECONSTRUCT = {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}


def read_prior(path) -> np.ndarray:
    """The mean of an emotion: (256,) float32, from a .npy or .safetensors file. Errors as `read_gaussian`."""
    return read_gaussian(path)[0]


def read_gaussian(path) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean and deviation of an emotion, from a file; nothing that the file asks for is run.

    Args:
        path: .npy (the published form, or a plain float array) or .safetensors with "mu" or "mean", and perhaps
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
    except _Unfit as error:
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
        InputError: as `read_gaussian`; or the file is named as one of the eight, from which all others are told, and
            holds a timeline or a mix by tokens.
    """
    from .emotion import NAMES, Emotion, load_emotion
    from .emotion.text import one_line

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


def _is_saved_emotion(path):
    from safetensors import SafetensorError, safe_open

    from .emotion.files import FORMAT, MAX_HEADER, header_size

    if path.suffix != ".safetensors":
        return False
    try:
        if header_size(path) > MAX_HEADER:
            return False
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False  # the reader that follows says what is wrong


class _Unfit(Exception):
    """Why a file is no prior."""


def _bytes(path) -> bytes:
    if not os.path.isfile(path):
        raise FileNotFoundError(2, "no such file")
    with open(path, "rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if not data:
        raise _Unfit("it is empty")
    if len(data) > LARGEST_FILE:
        raise _Unfit(f"it is larger than {LARGEST_FILE // 1024} KiB")
    return data


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    if data.startswith(b"\x93NUMPY"):
        return _npy_arrays(data)
    if data[8:9] == b"{":
        return _safetensors_arrays(data)
    raise _Unfit("it is neither a .npy nor a safetensors file")


def _safetensors_arrays(data):
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Unfit(f"it is damaged, or of a type that emotions do not have ({error})") from None


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
        raise _Unfit("its .npy header is damaged") from None
    rest = data[stream.tell() :]
    if dtype.hasobject:
        if shape != () or dtype != np.dtype(object):
            raise _Unfit("it holds other objects than the one dictionary of a published prior")
        return _dictionary(_Pickle(rest).value())
    return {"mean": _array(dtype.str, shape, fortran, rest)}


def _gaussian(arrays):
    known = {"mu", "mean", "deviation"}
    mean = [name for name in ("mean", "mu") if name in arrays]
    if len(mean) != 1 or set(arrays) - known:
        names = ", ".join(sorted(repr(str(name))[:40] for name in arrays)[:5]) or "nothing"
        raise _Unfit(f'it must hold "mu" or "mean", and may hold "deviation", but holds {names}')
    vectors = {name: _vector(name, array) for name, array in arrays.items()}
    deviation = vectors.get("deviation")
    if deviation is not None and (deviation < 0).any():
        raise _Unfit("its deviation has negative numbers")
    return vectors[mean[0]], deviation


def _vector(name, array) -> np.ndarray:
    if array.shape not in ((EMOTION_DIM,), (1, EMOTION_DIM)):
        raise _Unfit(f"{name!r} has shape {array.shape} instead of ({EMOTION_DIM},) or (1, {EMOTION_DIM})")
    if array.dtype.kind != "f":
        raise _Unfit(f"{name!r} holds {array.dtype} instead of floating-point numbers")
    with np.errstate(over="ignore"):
        vector = array.reshape(EMOTION_DIM).astype(np.float32)
    if not np.isfinite(vector).all():
        raise _Unfit(f"{name!r} holds numbers that are not finite (NaN or infinity)")
    return vector


def _array(type_name, shape, fortran, data) -> np.ndarray:
    """An array of floats over `data`, which must be exactly as long as it needs."""
    order, code = (type_name[0], type_name[1:]) if type_name[:1] in _BYTE_ORDERS else ("=", type_name)
    if code not in _FLOAT_TYPES:
        raise _Unfit(f"it holds an array of type {type_name[:20]!r} instead of floating-point numbers")
    if len(shape) > 2 or any(not 0 <= size <= LARGEST_FILE for size in shape):
        raise _Unfit(f"an array in it has the shape {str(shape)[:60]}")
    dtype = np.dtype(order + code)
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if len(data) != count * dtype.itemsize:
        raise _Unfit(
            f"it is damaged: {len(data)} bytes of data where an array of {shape} needs {count * dtype.itemsize}"
        )
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


class _Global(str):
    """A name that the pickle wants imported: "module name". Never imported."""


class _Mark:
    """The pickle machine's marker."""


class _Call:
    """A call that the pickle asks for. Never made."""

    def __init__(self, function, arguments):
        self.function, self.arguments, self.state = function, arguments, None


class _Pickle:
    """Follows a pickle's instructions on inert values; knows only those that a dictionary of float arrays needs."""

    def __init__(self, data: bytes):
        self.data = data
        self.stack, self.memo = [], {}

    def value(self):
        """The pickled value, with `_Global` and `_Call` where the pickle asks for an import or a call."""
        try:
            for instruction, argument, _ in pickletools.genops(self.data):
                if instruction.name == "STOP":
                    (value,) = self.stack
                    return value
                self._follow(instruction.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError):
            raise _Unfit("its pickle is damaged") from None
        raise _Unfit("its pickle is damaged")

    def _follow(self, name, argument):
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            pass
        elif name in ("BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"):
            stack.append(argument)
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name == "GLOBAL":
            stack.append(_Global(argument))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Global(f"{module} {attribute}"))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            stack.append(_Mark)
        elif name in ("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"):
            stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[name])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = self._pop(int(name[-1]))
            stack.append(tuple(items))
        elif name == "TUPLE":
            items = self._pop_to_mark()
            stack.append(tuple(items))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._pop_to_mark()
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if name == "SETITEM" else self._pop_to_mark()
            self._set_items(stack[-1], items)
        elif name == "REDUCE":
            function, arguments = self._pop(2)
            stack.append(_Call(function, arguments))
        elif name == "BUILD":
            (state,) = self._pop(1)
            stack[-1].state = state
        else:
            raise _Unfit(f"its pickle has the instruction {name}, which an array of floats does not need")

    def _pop(self, count):
        if len(self.stack) < count or _Mark in self.stack[-count:]:
            raise ValueError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _pop_to_mark(self):
        mark = len(self.stack) - 1 - self.stack[::-1].index(_Mark)
        items = self.stack[mark + 1 :]
        del self.stack[mark:]
        return items

    @staticmethod
    def _set_items(target, items):
        if type(target) is not dict or len(items) % 2 or not all(type(key) is str for key in items[::2]):
            raise ValueError
        target.update(zip(items[::2], items[1::2]))


def _dictionary(value) -> dict[str, np.ndarray]:
    """name → array, from a pickled 0-d object array that holds one dictionary of float arrays."""
    try:
        shape, type_name, fortran, items = _array_state(value)
        (contents,) = items
        fits = shape == () and type_name in ("|O", "O8", "|O8") and type(contents) is dict
    except (ValueError, TypeError):
        fits = False
    if not fits:
        raise _Unfit("it does not hold the one dictionary of a published prior")
    arrays = {}
    for name, pickled in contents.items():
        shape, type_name, fortran, data = _array_state(pickled)
        if type(data) is not bytes:
            raise _Unfit(f"{name[:40]!r} is no array of floats")
        arrays[name] = _array(type_name, shape, fortran, data)
    return arrays


def _array_state(value):
    """(shape, type with byte order, Fortran order, data) of a pickled array; anything else is refused."""
    if type(value) is not _Call:
        raise _Unfit("it holds something other than arrays of floats")
    if type(value.function) is not _Global or value.function not in _RECONSTRUCT:
        raise _Unfit(
            f"its pickle asks to call {_title(value.function)}, which an array of floats does not need "
            "(nothing was run)"
        )
    if value.arguments != ("numpy ndarray", (0,), b"b"):
        raise _Unfit("its pickle rebuilds something other than an array")
    match value.state:
        case (
            int(),
            tuple(shape),
            _Call(function="numpy dtype", arguments=(str(code), *_), state=state),
            bool(fortran),
            data,
        ):
            pass
        case _:
            raise _Unfit("an array in it is damaged")
    if not all(type(size) is int for size in shape):
        raise _Unfit("an array in it is damaged")
    order = state[1] if type(state) is tuple and len(state) > 1 and type(state[1]) is str else "="
    return shape, order + code, fortran, data


def _title(function) -> str:
    return repr(function.replace(" ", ".")[:60]) if type(function) is _Global else "something"
