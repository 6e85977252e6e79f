"""What the emotion classifier distinguishes: MEAD's seven emotions in three levels, and neutral.

22 classes, as the released classifier has. The order of its classes is not documented, and this one is a choice: the
emotions by name, each with its levels from weak to strong, neutral last.
"""

from ..emotion.options import NAMES
from ..errors import InputError

LEVELS = (1, 2, 3)
NEUTRAL = "neutral"
EMOTIONS = tuple(name for name in NAMES if name != NEUTRAL)
CLASSES = len(EMOTIONS) * len(LEVELS) + 1
UNKNOWN = 0  # a level that is not known


def classes_of(emotion, level):
    """The numbers of the classes that a label allows: one, or an emotion's three where the level is UNKNOWN.

    Args:
        emotion: one of NAMES.
        level: 1 to 3, or UNKNOWN; not looked at for neutral.
    """
    if emotion == NEUTRAL:
        return (CLASSES - 1,)
    first = EMOTIONS.index(emotion) * len(LEVELS)
    return tuple(first + each - 1 for each in (LEVELS if level == UNKNOWN else (level,)))


def read_emotion(text, where):
    """One of NAMES, else InputError that says where it is."""
    if text not in NAMES:
        raise InputError(f"{where}: the emotion is {text!r}, and must be one of {', '.join(NAMES)}.")
    return text


def read_level(text, where):
    """A level as a number: 1, "2", "level_3"; empty or "unknown" is UNKNOWN. Else InputError that says where it is."""
    level = str("" if text is None else text).strip().removeprefix("level_")
    if level in ("", "unknown"):
        return UNKNOWN
    if level not in map(str, LEVELS):
        raise InputError(f"{where}: the level is {text!r}, and must be 1, 2, 3, or empty where it is not known.")
    return int(level)
