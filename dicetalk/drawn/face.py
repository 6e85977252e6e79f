"""A person × blendshapes × a pose of the head → a picture, drawn with Pillow.

Everything is drawn in whole pixels of a larger picture, which is then made smaller: the same numbers give the same
bytes with the same version of Pillow, whatever the processor.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import InputError
from ..reading.clip import BLENDSHAPES
from .drawing import CHIN, FUNNEL, HAIRLINE, JAW_DROP, LIP_DROP, LOWER_DOWN, PARTED, UPPER_UP, Drawing, smile_parts
from .person import whole
from .pose import REST, Pose, placed

SIZES = 32, 1024
NEUTRAL = np.zeros(len(BLENDSHAPES), np.float32)


def draw(person, blendshapes=NEUTRAL, pose=REST, size=64):
    """One picture.

    Args:
        person: Person.
        blendshapes: (52,) numbers, columns as BLENDSHAPES; clipped to 0 to 1. jawForward, jawLeft, jawRight,
            mouthShrugUpper and _neutral do not show.
        pose: Pose.
        size: pixels of a side.

    Returns:
        (size, size) PIL image, RGB.

    Raises:
        InputError: another number of blendshapes, or numbers that are not finite; a size out of range.
    """
    check_size(size)
    values = np.asarray(blendshapes, dtype=np.float64)
    if values.shape != (len(BLENDSHAPES),) or not np.isfinite(values).all():
        raise InputError(f"The blendshapes of a drawing are {len(BLENDSHAPES)} finite numbers.")
    shapes = dict(zip(BLENDSHAPES, values.clip(0, 1).tolist(), strict=True))
    factor = 4 if size <= 128 else 2
    picture = Image.new("RGB", (size * factor, size * factor), person.wall)
    Drawing(picture, person, shapes, pose).all()
    return picture.reduce(factor)


def check_size(size):
    """InputError for a size that is no whole number in SIZES."""
    whole(size, *SIZES, "size of a drawing")


def lip_gap(blendshapes):
    """How far the lips are apart in the drawing: (…, 52) → (…,), 0 closed, 1 about as far as they go."""
    column = {name: np.asarray(blendshapes)[..., BLENDSHAPES.index(name)] for name in _GAP_NAMES}
    jaw = np.maximum(column["jawOpen"] - column["mouthClose"], 0)
    upper = (column["mouthUpperUpLeft"] + column["mouthUpperUpRight"]) / 2
    lower = (column["mouthLowerDownLeft"] + column["mouthLowerDownRight"]) / 2
    smile = (column["mouthSmileLeft"] + column["mouthSmileRight"]) / 2
    parted = PARTED * smile_parts(smile, column["mouthRollLower"])
    gap = LIP_DROP * jaw + UPPER_UP * upper + LOWER_DOWN * lower + 2 * FUNNEL * column["mouthFunnel"] + parted
    return gap / LIP_DROP


_GAP_NAMES = (
    *("jawOpen", "mouthClose", "mouthFunnel", "mouthUpperUpLeft", "mouthUpperUpRight"),
    *("mouthLowerDownLeft", "mouthLowerDownRight", "mouthRollLower", "mouthSmileLeft", "mouthSmileRight"),
)


def face_box(person, blendshapes=NEUTRAL, poses: Pose | Sequence = REST, size=64):
    """From hairline to chin and from cheek to cheek, in pixels.

    Args:
        person: Person.
        blendshapes: (52,) of one picture, or (n, 52) of several, whose box holds the face in all of them.
        poses: a Pose, or n of them.
        size: of the pictures.

    Returns:
        (x1, y1, x2, y2) floats, inside the picture.
    """
    check_size(size)
    blendshapes = np.atleast_2d(blendshapes)
    poses = [poses] if isinstance(poses, Pose) else poses
    half = 0.49 * person.face_width
    corners = []
    for row, pose in zip(blendshapes, poses, strict=True):
        drop = JAW_DROP * float(np.clip(row[BLENDSHAPES.index("jawOpen")], 0, 1))
        face = np.array([-half - 0.1j, half - 0.1j, HAIRLINE * 1j, (CHIN * person.chin + drop) * 1j])
        corners.append(placed(face, pose))
    corners = ((np.concatenate(corners).view(np.float64).reshape(-1, 2) + 1) / 2 * size).clip(0, size)
    return *map(float, corners.min(0).round(2)), *map(float, corners.max(0).round(2))
