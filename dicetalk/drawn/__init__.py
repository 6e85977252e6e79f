"""Drawn people: a world whose factors are known, to train on and to measure in where there are no recordings.

A Person × blendshapes × a Pose is a picture (`draw`), a Take a talking one with its sound. `docs/drawn-people.md` shows
them. The names below load their modules, and the libraries behind them, when they are first used.
"""

from ..dependencies import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Person": "person",
        "Pose": "pose",
        "draw": "face",
        "face_box": "face",
        "lip_gap": "face",
        "CLASSES": "expression",
        "SENTENCES": "sentences",
        "Take": "take",
        "takes": "splits",
    },
)
