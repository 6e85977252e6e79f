"""The learned emotion embedder: from a reference clip's face and voice to a Gaussian in the emotion space.

The names below load their modules, and the libraries behind them, when they are first used.
"""

import importlib

_EXPORTS = {
    "EmbedderConfig": "model",
    "EmotionEmbedder": "model",
    "load_embedder": "files",
    "save_embedder": "files",
    "LearnedEmbedder": "reader",
    "choose_embedder": "choice",
}
__all__ = list(_EXPORTS)

USES = ("both", "visual", "audio")  # the modalities that an embedder is trained with


def __getattr__(name):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
