"""How the command line calls a setting."""


def flag(name: str) -> str:
    """ "emotion_scale" → "--emotion-scale"."""
    return "--" + name.replace("_", "-")
