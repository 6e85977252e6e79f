"""Emotion as a value (presets, mixes, timelines, text form) and the model that turns it into tokens.

The names below load their modules when they are first used; reading and checking the text form needs no PyTorch.
"""

import importlib

_EXPORTS = {
    "NAMES": "options",
    "BankOptions": "options",
    "parse_text": "text",
    "format_text": "text",
    "Emotion": "value",
    "TokenMix": "value",
    "mix": "mixing",
    "EmotionTimeline": "timeline",
    "TimelineKey": "timeline",
    "read_argument": "text",
    "parse_emotion": "reading",
    "resolve": "reading",
    "to_text": "reading",
    "EmotionLibrary": "files",
    "load_emotion": "files",
    "save_emotion": "files",
    "distinct_tokens": "tokens",
    "emotion_tokens": "tokens",
    "bank_options": "tokens",
    "EmotionModel": "model",
    "Clip": "clip",
    "Reading": "clip",
    "load_embedder": "clip",
    "open_clip": "clip_files",
    "Evidence": "evidence",
}
__all__ = list(_EXPORTS)


def __getattr__(name):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
