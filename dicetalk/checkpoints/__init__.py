"""Files of weights: where they are, how they are read, and how a file becomes a module, or one clear error.

The names below load their modules, and the libraries behind them, when they are first used.
"""

from ..dependencies import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "PARTS": "finding",
        "Checkpoint": "finding",
        "find_checkpoints": "finding",
        "resolve_checkpoint": "finding",
        "Unreadable": "tensors",
        "read_tensors": "tensors",
        "fitted_part": "loading",
        "load_part": "loading",
        "read_state_dict": "loading",
        "load_whisper_encoder": "whisper",
        "load_prior": "priors",
        "load_priors": "priors",
    },
)
