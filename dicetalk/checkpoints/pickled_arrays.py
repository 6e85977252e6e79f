"""A pickled dictionary of float arrays, read without unpickling.

The pickle's instructions are followed on inert values, so that what it asks to import or to call is only ever compared
with the few names that such a file has. Written here because every unpickler, skops' included, builds the objects that
a file asks for: here nothing but float arrays can come out.
"""

import pickletools
from typing import Any

import numpy as np

LARGEST_FILE = 64 * 1024  # bytes; a published prior has 1,403
_FLOAT_TYPES = {"f2", "f4", "f8"}
_BYTE_ORDERS = {"<", ">", "="}
_RECONSTRUCT = {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}


class Unfit(Exception):
    """Why a file is no prior."""


def float_array(type_name, shape, fortran, data) -> np.ndarray:
    """An array of floats over `data`, which must be exactly as long as it needs."""
    order, code = (type_name[0], type_name[1:]) if type_name[:1] in _BYTE_ORDERS else ("=", type_name)
    if code not in _FLOAT_TYPES:
        raise Unfit(f"it holds an array of type {type_name[:20]!r} instead of floating-point numbers")
    if len(shape) > 2 or any(not 0 <= size <= LARGEST_FILE for size in shape):
        raise Unfit(f"an array in it has the shape {str(shape)[:60]}")
    dtype = np.dtype(order + code)
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if len(data) != count * dtype.itemsize:
        raise Unfit(
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


class Pickle:
    """Follows a pickle's instructions on inert values; knows only those that a dictionary of float arrays needs."""

    def __init__(self, data: bytes):
        self.data = data
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def value(self):
        """The pickled value, with `_Global` and `_Call` where the pickle asks for an import or a call."""
        try:
            for instruction, argument, _ in pickletools.genops(self.data):
                if instruction.name == "STOP":
                    (value,) = self.stack
                    return value
                self._follow(instruction.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError):
            raise Unfit("its pickle is damaged") from None
        raise Unfit("its pickle is damaged")

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
            raise Unfit(f"its pickle has the instruction {name}, which an array of floats does not need")

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


def arrays_of(value) -> dict[str, np.ndarray]:
    """name → array, from a pickled 0-d object array that holds one dictionary of float arrays."""
    try:
        shape, type_name, fortran, items = _array_state(value)
        (contents,) = items
        fits = shape == () and type_name in ("|O", "O8", "|O8") and type(contents) is dict
    except (ValueError, TypeError):
        fits = False
    if not fits:
        raise Unfit("it does not hold the one dictionary of a published prior")
    arrays = {}
    for name, pickled in contents.items():
        shape, type_name, fortran, data = _array_state(pickled)
        if type(data) is not bytes:
            raise Unfit(f"{name[:40]!r} is no array of floats")
        arrays[name] = float_array(type_name, shape, fortran, data)
    return arrays


def _array_state(value):
    """(shape, type with byte order, Fortran order, data) of a pickled array; anything else is refused."""
    if type(value) is not _Call:
        raise Unfit("it holds something other than arrays of floats")
    if type(value.function) is not _Global or value.function not in _RECONSTRUCT:
        raise Unfit(
            f"its pickle asks to call {_title(value.function)}, which an array of floats does not need "
            "(nothing was run)"
        )
    if value.arguments != ("numpy ndarray", (0,), b"b"):
        raise Unfit("its pickle rebuilds something other than an array")
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
            raise Unfit("an array in it is damaged")
    if not all(type(size) is int for size in shape):
        raise Unfit("an array in it is damaged")
    order = state[1] if type(state) is tuple and len(state) > 1 and type(state[1]) is str else "="
    return shape, order + code, fortran, data


def _title(function) -> str:
    return repr(function.replace(" ", ".")[:60]) if type(function) is _Global else "something"
