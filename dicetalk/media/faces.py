"""Finding faces in a picture, with the cascade that scikit-image carries."""

import numpy as np
from PIL import Image

from ..errors import InputError

_HOW_TO_TELL = "with --face x1,y1,x2,y2 (in ComfyUI with the input bboxes or mask)"

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

# The cascade's square runs from the eyebrows' top to the lower lip's fold; shares of its side that reach the hairline
# and the chin, measured on upright faces.
_TO_HAIRLINE = 0.08
_TO_CHIN = 0.12


def detect_face(image):
    """The largest face, from hairline to chin, found with the LBP cascade that scikit-image carries.

    It finds upright faces seen from the front. The same image gives the same box.

    Args:
        image: PIL image.

    Returns:
        (x1, y1, x2, y2) floats, inside the image.

    Raises:
        InputError: no face, or two that are equally large.
    """
    faces = _search(image)
    if not faces:
        raise InputError(f"No face was found in the portrait: say where it is, {_HOW_TO_TELL}, or use another picture.")
    if len(faces) > 1 and faces[1][2] > _TIE * faces[0][2]:
        raise InputError(f"Two faces in the portrait are equally large: say which one is meant, {_HOW_TO_TELL}.")
    return hairline_to_chin(faces[0], image.size)


def find_faces(image):
    """The boxes of a PIL image's faces, largest first, found as `detect_face` does; small ones may be missing."""
    return [hairline_to_chin(square, image.size) for square in _search(image)]


def _search(image):
    """Faces (x, y, side), largest first, of the first search that finds any."""
    grey = image.convert("L")
    cascade = _cascade()
    for short_sides, least_hits in _SEARCHES:
        if short_sides[0] > _SEARCHES[0][0][0] and short_sides[-1] > min(grey.size):
            break
        if faces := _faces_at(cascade, grey, short_sides, least_hits):
            return faces
    return []


def hairline_to_chin(square, image_size):
    """The face box that belongs to a cascade's square (x, y, side), clipped to the image."""
    x, y, side = square
    width, height = image_size
    top, bottom = y - _TO_HAIRLINE * side, y + (1 + _TO_CHIN) * side
    return max(0.0, x), max(0.0, top), min(float(width), x + side), min(float(height), bottom)


def _cascade():
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())


def _faces_at(cascade, grey, short_sides, least_hits):
    """Faces (x, y, side) in pixels of `grey`, largest first, from a search of copies of these sizes."""
    squares = set().union(*(_hits(cascade, grey, short_side) for short_side in short_sides))
    groups = group_hits(sorted(squares, key=_largest_first))
    most = max((count for count, _ in groups), default=0)
    least = max(least_hits, _LEAST_SHARE_OF_HITS * most)
    return sorted((square for count, square in groups if count >= least), key=_largest_first)


def _largest_first(square):
    x, y, side = square
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
