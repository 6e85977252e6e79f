"""Labels of recordings, and which of the emotion classifier's 22 classes they allow."""

from ..emotion.options import CLASSES, LEVELS, NAMES
from ..emotion.words import known_name
from ..errors import InputError

UNKNOWN = 0  # a level that is not known


def classes_of(emotion, level):
    """The numbers of the classes that a label allows: one, or an emotion's three where the level is UNKNOWN.

    Args:
        emotion: one of NAMES.
        level: 1 to 3, or UNKNOWN; not looked at for neutral.
    """
    return tuple(
        number
        for number, (name, of_class) in enumerate(CLASSES)
        if name == emotion and (emotion == "neutral" or level in (UNKNOWN, of_class))
    )


def read_emotion(text, where):
    """The one of NAMES that a label means, whatever its capitals or form; else InputError that says where it is."""
    name = known_name(str(text).strip(), NAMES)
    if name is None:
        raise InputError(f"{where}: the emotion is {text!r}, and must be one of {', '.join(NAMES)}.")
    return name


def read_level(text, where):
    """A level as a number: 1, "2.0", "level_3"; empty or "unknown" is UNKNOWN. Else InputError with its place."""
    level = str("" if text is None else text).strip().lower().removeprefix("level").strip(" _-").removesuffix(".0")
    if level in ("", "unknown"):
        return UNKNOWN
    if level not in map(str, LEVELS):
        raise InputError(f"{where}: the level is {text!r}, and must be 1, 2, 3, or empty where it is not known.")
    return int(level)
