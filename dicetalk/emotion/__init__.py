"""Emotion as a value: presets, mixes, timelines, bank options, their text form and their files. It knows no model.

The names below load their modules when they are first used; reading and checking the text form needs no PyTorch.
"""

from ..dependencies import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
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
    },
)
