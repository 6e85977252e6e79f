"""Reading an emotion from a reference clip: its pictures, its face's blendshapes and its voice.

The names below load their modules, and the libraries behind them, when they are first used.
"""

import importlib

_EXPORTS = {
    "Clip": "clip",
    "Reading": "clip",
    "NoCue": "clip",
    "Evidence": "evidence",
    "open_clip": "files",
}
__all__ = list(_EXPORTS)


def __getattr__(name):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
