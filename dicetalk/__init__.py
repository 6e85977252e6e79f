"""DICE-Talk in plain Python: image + speech + emotion in, talking-portrait video out (arXiv 2504.18087).

The names below load their modules, and the libraries behind them, when they are first used.
"""

import importlib

__version__ = "0.1.0"

_EXPORTS = {
    "DiceTalkPipeline": "pipeline",
    "Job": "job",
    "render": "rendering",
    "load_portrait": "media.portrait",
    "load_audio": "media.audio",
    "read_sound": "media.audio",
    "write_video": "media.video",
    "load_emotion": "emotion",
    "save_emotion": "emotion",
    "mix": "emotion",
    "find_checkpoints": "checkpoints",
    "DiceTalkUNet": "model",
    "PoseGuider": "model",
    "AudioProjection": "model",
    "EmotionModel": "model",
    "Emotion": "emotion",
    "EmotionTimeline": "emotion",
    "InputError": "errors",
}
__all__ = list(_EXPORTS)


def __getattr__(name):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
