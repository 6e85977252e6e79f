"""Reading an emotion from a reference clip: its pictures, its face's blendshapes and its voice.

The names below load their modules, and the libraries behind them, when they are first used.
"""

from ..dependencies import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Clip": "clip",
        "Reading": "clip",
        "NoCue": "clip",
        "Evidence": "evidence",
        "open_clip": "files",
    },
)
