"""What a checkpoint holds, as modules: UNet, pose guider, audio projection, emotion model.

The names below load their modules, and the libraries behind them, when they are first used.
"""

from ..dependencies import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DiceTalkUNet": "unet",
        "PoseGuider": "pose_guider",
        "AudioProjection": "audio",
        "EmotionModel": "emotion",
        "bank_options": "emotion_tokens",
        "distinct_tokens": "emotion_tokens",
        "emotion_tokens": "emotion_tokens",
    },
)
