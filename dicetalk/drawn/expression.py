"""What a person's face does in an emotion: the project's prototypes of facial actions, in that person's own manner.

The actions are those of `reading.face_actions`, in three levels as in MEAD. What else goes with an emotion here, lids
half down, a glance, a tilt of the head, moves none of the action units that distinguish emotions.
"""

import numpy as np

from ..emotion.options import CLASSES, LEVELS, NAMES
from ..errors import InputError
from ..reading.clip import BLENDSHAPES
from ..reading.face_actions import FEATURES, PROTOTYPES, UNITS
from .person import usual_form
from .pose import Pose

STRENGTHS = (0.4, 0.65, 0.9)  # of the movements, by level; less than 0.4 hardly shows at 64 pixels
COLUMN = {name: number for number, name in enumerate(BLENDSHAPES)}

_FEW_ACTIONS = {"disgusted": 1.25}  # what moves little of the face moves it more, to be seen as well

# Blendshapes at full strength; the glance is to the person's own side.
_BESIDE = {
    "contempt": {"eyeBlinkLeft": 0.25, "eyeBlinkRight": 0.25, "glance": 0.35},
    "disgusted": {"eyeBlinkLeft": 0.3, "eyeBlinkRight": 0.3},
    "sad": {"eyeBlinkLeft": 0.18, "eyeBlinkRight": 0.18, "eyeLookDownLeft": 0.45, "eyeLookDownRight": 0.45},
}
_HEAD = {  # at full strength; roll towards the person's own side
    "angry": Pose(0.0, 0.008, 0.0, 1.025),
    "contempt": Pose(0.0, -0.006, 0.06, 1.0),
    "disgusted": Pose(0.0, -0.006, 0.05, 0.975),
    "fear": Pose(0.0, -0.004, -0.015, 0.975),
    "happy": Pose(0.0, -0.003, 0.03, 1.01),
    "neutral": Pose(),
    "sad": Pose(0.0, 0.014, 0.045, 0.995),
    "surprised": Pose(0.0, -0.012, 0.0, 0.99),
}


def strength(emotion, level=None):
    """0.4, 0.65 or 0.9 for the levels 1 to 3; 0 for neutral, which has one level.

    Raises:
        InputError: an emotion that is none of NAMES, or a level that it does not have.
    """
    if emotion not in NAMES:
        raise InputError(f"The emotion is {emotion!r}: give one of {', '.join(NAMES)}.")
    level = most(emotion) if level is None else level
    if (emotion, level) not in CLASSES:
        levels = "1 alone" if emotion == "neutral" else "1, 2 or 3"
        raise InputError(f"The level of {emotion} is {level!r}: it has {levels}.")
    return 0.0 if emotion == "neutral" else STRENGTHS[level - 1]


def most(emotion):
    """The highest level of an emotion."""
    return 1 if emotion == "neutral" else LEVELS[-1]


def expression(person, emotion, level=None):
    """(52,) float64 blendshapes of a person who shows an emotion to the full of a level; the highest one if None."""
    full, manner = strength(emotion, level), person.manner
    row = np.zeros(len(BLENDSHAPES))
    if not full:
        return row
    own = PROTOTYPES[emotion][manner.forms[NAMES.index(emotion)]]
    shares = dict.fromkeys(own.split(), manner.own) | dict.fromkeys(usual_form(emotion).split(), 1.0)
    if emotion == "contempt":
        gain = full * manner.gains[FEATURES.index("one side")]
        row[COLUMN["mouthDimple" + manner.side]] = 0.75 * gain
        row[COLUMN["mouthSmile" + manner.side]] = 0.45 * gain
        shares = {}
    for unit, share in shares.items():
        place = FEATURES.index(unit)
        each = full * share * manner.gains[place] * _FEW_ACTIONS.get(emotion, 1.0)
        for name in UNITS[unit]:
            side = name.endswith("Left") - name.endswith("Right")
            row[COLUMN[name]] = each * (1 + side * manner.lopsided[place])
    for name, value in _BESIDE.get(emotion, {}).items():
        for shape in _glance(manner.side) if name == "glance" else (name,):
            row[COLUMN[shape]] += full * value
    return row.clip(0, 1)


def head(person, emotion, level=None):
    """The Pose that goes with `expression`."""
    full, pose = strength(emotion, level), _HEAD[emotion]
    roll = pose.roll if person.manner.side == "Left" else -pose.roll
    return Pose(full * pose.x, full * pose.y, full * roll, 1 + full * (pose.scale - 1))


def _glance(side):
    other = "Right" if side == "Left" else "Left"
    return f"eyeLookOut{side}", f"eyeLookIn{other}"
