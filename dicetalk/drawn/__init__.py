"""Drawn people: a world whose factors are known, to train on and to measure in where there are no recordings.

A Person × blendshapes × a Pose is a picture (`draw`), a Take a talking one with its sound. `docs/drawn-people.md` shows
them. The names below load their modules, and the libraries behind them, when they are first used.
"""

import importlib

_EXPORTS = {
    "Person": "person",
    "Pose": "pose",
    "draw": "face",
    "face_box": "face",
    "lip_gap": "face",
    "CLASSES": "expression",
    "SENTENCES": "sentences",
    "Take": "take",
    "takes": "splits",
}
__all__ = list(_EXPORTS)


def __getattr__(name):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
