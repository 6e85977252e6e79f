"""Emotion as a value: presets, mixes, timelines, bank options, their text form and their files. It knows no model.

The names below load their modules when they are first used; reading and checking the text form needs no PyTorch.
"""

import importlib

_EXPORTS = {
    "NAMES": "options",
    "BankOptions": "options",
    "parse_text": "text",
    "format_text": "text",
    "read_argument": "text",
    "Emotion": "value",
    "TokenMix": "value",
    "mix": "mixing",
    "EmotionTimeline": "timeline",
    "TimelineKey": "timeline",
    "parse_emotion": "parsing",
    "resolve": "parsing",
    "to_text": "parsing",
    "EmotionLibrary": "files",
    "load_emotion": "files",
    "save_emotion": "files",
}
__all__ = list(_EXPORTS)


def __getattr__(name):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
