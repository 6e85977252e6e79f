"""What a checkpoint holds, as modules: UNet, pose guider, audio projection, emotion model.

The names below load their modules, and the libraries behind them, when they are first used.
"""

import importlib

_EXPORTS = {
    "DiceTalkUNet": "unet",
    "PoseGuider": "pose_guider",
    "AudioProjection": "audio",
    "EmotionModel": "emotion",
    "bank_options": "emotion_tokens",
    "distinct_tokens": "emotion_tokens",
    "emotion_tokens": "emotion_tokens",
}
__all__ = list(_EXPORTS)


def __getattr__(name):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
