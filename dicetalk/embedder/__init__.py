"""The learned emotion embedder: from a reference clip's face and voice to a Gaussian in the emotion space.

The names below load their modules, and the libraries behind them, when they are first used.
"""

from ..dependencies import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "EmbedderConfig": "model",
        "EmotionEmbedder": "model",
        "load_embedder": "files",
        "save_embedder": "files",
        "LearnedEmbedder": "reader",
        "choose_embedder": "choice",
    },
)

USES = ("both", "visual", "audio")  # the modalities that an embedder is trained with
