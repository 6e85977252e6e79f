"""Where a head is in a picture."""

from dataclasses import dataclass

import numpy as np

_NECK = 0.7j  # which the head turns about
_HEAD = 1.08  # its size in the picture


@dataclass(frozen=True)
class Pose:
    """Where the head is: how far it moved, in shares of the picture's width; its roll in radians, clockwise in the
    picture; and its size, 1 as usual."""

    x: float = 0.0
    y: float = 0.0
    roll: float = 0.0
    scale: float = 1.0


REST = Pose()


def placed(points, pose):
    """Where points of the head are in the picture; it turns and grows about the neck."""
    return (points - _NECK) * turn(pose) + (_NECK + 2 * pose.x + 2j * pose.y)


def turn(pose):
    return _HEAD * pose.scale * np.exp(1j * pose.roll)
