"""DICE-Talk in plain Python: image + speech + emotion in, talking-portrait video out (arXiv 2504.18087).

The names below load their modules, and the libraries behind them, when they are first used.
"""

from .dependencies import lazy_names

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
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
    },
)
