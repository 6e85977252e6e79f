"""Files of weights: where they are, how they are read, and how a file becomes a module, or one clear error.

The names below load their modules, and the libraries behind them, when they are first used.
"""

import importlib

_EXPORTS = {
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
}
__all__ = list(_EXPORTS)


def __getattr__(name):
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
