"""The portrait: where the face is, what is cut out, and the mask of where the model may move it.

A box is (x1, y1, x2, y2) in pixels of the image as the user gave it. All geometry is plain arithmetic on numbers.
"""

import math
import reprlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import InputError
from .faces import choose_face
from .image import load_image

MASK_AREA = 1.1
MULTIPLE = 64
LONGEST = 8  # times the short side; beyond, a small file could ask for any amount of memory
_SMALLEST_FACE = 2

# What a mask of a face is like, by judgement: shares of the picture and its border, and of its own bounding box.
_BORDER, _MOST_FACE, _LEAST_FILLED = 0.4, 0.8, 0.4
_SPECK = 0.02  # of the largest part of a mask; smaller ones are no face


@dataclass(frozen=True)
class PreparedPortrait:
    """A portrait as the model takes it.

    Attributes:
        image: PIL RGB image, both sides multiples of 64.
        face_mask: (height, width) float32 array of the image's size, 1 where the face is, 0 elsewhere.
        face_box: the face in the original image.
        crop_box: the part of the original image that was taken, in whole pixels.
        original_size: width and height of the original image.
        notes: sentences on where the face was found, where it was searched for, and how a box or a mask was taken.
        warnings: sentences that a person should read: on faces with little evidence, and on tilted heads.
        frames: (N, height, width, 3) uint8 of the image's size, 12.5 a second, where a video takes the portrait's
            place, see `dicetalk.media.moving.prepare_video`; `image` is the first. None for a picture.
    """

    image: Image.Image
    face_mask: np.ndarray
    face_box: tuple
    crop_box: tuple
    original_size: tuple
    notes: tuple = ()
    warnings: tuple = ()
    frames: np.ndarray | None = None


def prepare_portrait(image, face_box=None, short_side=512, crop=False, expand_ratio=0.5, mask=None, painted=False):
    """Find the face, crop to it if asked, resize, and draw the face mask.

    Args:
        image: PIL image.
        face_box: (x1, y1, x2, y2) hairline to chin, in pixels or, with no value above 1, as shares of the sides; or
            which of the faces that are found, as `dicetalk.media.faces.choose_face`. The largest face when neither it
            nor a mask is given.
        short_side: pixels that the short side is resized to (each side is then rounded to a multiple of 64).
        crop: cut a square around the face.
        expand_ratio: with `crop`, how much is kept on every side of the face, as a share of its size.
        mask: (height, width) array or tensor of the image's size, 1 on the face, used instead of a box. Its bounding
            box (where it reaches 0.5), without specks, is the face box. One that covers all but the face is inverted,
            and values of 0 to 255 are divided by 255.
        painted: with a mask, take it as it is, not the rectangle around it that the model was trained with.

    Returns:
        PreparedPortrait.

    Raises:
        InputError: no face, an ambiguous one, or a box, mask or size that cannot be used.
    """
    image = image.convert("RGB")
    notes, warnings = [], []
    if mask is not None:
        mask, notes = _right_way_round(*_check_mask(mask, image.size))
        face_box, more = _face_of(mask)
        face_box, notes = _clipped(face_box, image.size), notes + more
    elif face_box is None or isinstance(face_box, (str, int)):
        face = choose_face(image, face_box)
        face_box, notes, warnings = face.box, [face.text()], face.warnings()
    else:
        face_box = check_box(face_box, image.size)

    crop_box = face_crop(face_box, image.size, expand_ratio) if crop else (0, 0, *image.size)
    left, top = crop_box[:2]
    part = image.crop(crop_box)
    size = resized_size(*part.size, short_side)
    if mask is None or not painted:
        shifted = (face_box[0] - left, face_box[1] - top, face_box[2] - left, face_box[3] - top)
        face_mask = draw_face_mask(shifted, part.size, size, MASK_AREA if mask is None else 1.0)
    else:
        face_mask = _resize_mask(Image.fromarray(np.rint(mask * 255).astype(np.uint8)).crop(crop_box), size)
    return PreparedPortrait(
        image=part.resize(size, Image.Resampling.LANCZOS),
        face_mask=face_mask,
        face_box=face_box,
        crop_box=crop_box,
        original_size=image.size,
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def load_portrait(path, face_box=None, short_side=512, crop=False, expand_ratio=0.5):
    """Read a picture and prepare it for the model: `load_image`, then `prepare_portrait`.

    Args:
        path: the picture's file.
        face_box, short_side, crop, expand_ratio: as `prepare_portrait` takes them.

    Returns:
        PreparedPortrait.

    Raises:
        InputError: the file cannot be read, or holds no face, an ambiguous one, or one that cannot be used.
    """
    return prepare_portrait(load_image(path), face_box, short_side, crop, expand_ratio)


def check_box(box, image_size):
    """A face box as four floats in pixels, clipped to the image.

    Args:
        box: x1, y1, x2, y2 in pixels; where all are 0 to 1, which is no face's size in pixels, as shares of the sides.
        image_size: width, height.

    Raises:
        InputError: not four finite numbers, inverted, outside the image, or less than 2 pixels of it.
    """
    try:
        x1, y1, x2, y2 = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"The face box {reprlib.repr(box)} is not four numbers: give x1,y1,x2,y2 in pixels.") from None
    width, height = image_size
    if x1 >= 0 and y1 >= 0 and max(x2, y2) <= 1:
        x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
    return _clipped((x1, y1, x2, y2), image_size)


def _clipped(box, image_size):
    x1, y1, x2, y2 = box
    name = f"The face box {x1:g},{y1:g},{x2:g},{y2:g}"
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise InputError(f"{name} holds a value that is not a finite number: give x1,y1,x2,y2 in pixels.")
    if x2 <= x1 or y2 <= y1:
        raise InputError(f"{name} is inverted or empty: x1,y1 is its top left corner and x2,y2 its bottom right one.")
    width, height = image_size
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise InputError(f"{name} is outside the image, which is {width}×{height} pixels.")
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if min(x2 - x1, y2 - y1) < _SMALLEST_FACE:
        raise InputError(f"{name} covers less than {_SMALLEST_FACE} pixels of the image: give a larger box.")
    return x1, y1, x2, y2


def face_crop(box, image_size, expand_ratio=0.5):
    """The square to cut around a face.

    The box, expanded by `expand_ratio` of its size on every side, is clipped to the image; its longer side is then cut
    to the shorter one, as evenly around the face as the clipped box allows.

    Args:
        box: x1, y1, x2, y2 in pixels, inside the image.
        image_size: width, height.

    Returns:
        x1, y1, x2, y2 as ints; the sides may differ by one pixel from rounding.
    """
    if not (math.isfinite(expand_ratio) and expand_ratio >= 0):
        raise InputError(f"The crop's margin is {expand_ratio}: give 0 or a positive number, for instance 0.5.")
    x1, y1, x2, y2 = box
    width, height = image_size
    margin_x, margin_y = (x2 - x1) * expand_ratio, (y2 - y1) * expand_ratio
    left, right = max(0.0, x1 - margin_x), min(float(width), x2 + margin_x)
    top, bottom = max(0.0, y1 - margin_y), min(float(height), y2 + margin_y)
    side = min(right - left, bottom - top)
    left = _place(side, (x1 + x2) / 2, left, right)
    top = _place(side, (y1 + y2) / 2, top, bottom)
    return round(left), round(top), round(left + side), round(top + side)


def _place(length, centre, low, high):
    """Start of a stretch of `length`, centred as nearly as possible, between low and high."""
    return min(max(centre - length / 2, low), high - length)


def resized_size(width, height, short_side):
    """Width and height after resizing the short side to `short_side`: multiples of 64, at least 64.

    Raises:
        InputError: a short side below 64, or sides too unequal for a portrait.
    """
    if not (math.isfinite(short_side) and short_side >= MULTIPLE):
        raise InputError(
            f"The portrait's short side is {short_side} pixels: at least {MULTIPLE} is needed, 512 is usual."
        )
    if max(width, height) > LONGEST * min(width, height):
        raise InputError(
            f"The portrait is {width}×{height} pixels, more than {LONGEST} times as long as wide: cut it to the "
            "person, or switch crop on."
        )
    scale = short_side / min(width, height)
    return tuple(max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in (width, height))


def mask_rectangle(box, image_size, area=MASK_AREA):
    """The face box scaled by `area` about its centre, in whole pixels inside the image."""
    x1, y1, x2, y2 = box
    return *_scaled_span(x1, x2, image_size[0], area), *_scaled_span(y1, y2, image_size[1], area)


def _scaled_span(low, high, limit, area):
    centre, half = int((low + high) / 2), int((high - low) * area / 2)
    return max(0, centre - half), min(limit, centre + half)


def draw_face_mask(box, image_size, size, area=MASK_AREA):
    """The face mask of a box in an image, resized with the image.

    Args:
        box: x1, y1, x2, y2 in pixels of the image.
        image_size: width, height of the image.
        size: width, height after resizing.
        area: factor on the box's width and height.

    Returns:
        (height, width) float32 array in 0..1.
    """
    x_low, x_high, y_low, y_high = mask_rectangle(box, image_size, area)
    mask = Image.new("L", tuple(image_size), 0)
    if x_high > x_low and y_high > y_low:
        mask.paste(255, (x_low, y_low, x_high, y_high))
    return _resize_mask(mask, size)


def _resize_mask(mask, size):
    return np.asarray(mask.resize(tuple(size), Image.Resampling.LANCZOS), dtype=np.float32) / 255


def _check_mask(mask, image_size):
    mask = np.asarray(mask, dtype=np.float32)
    width, height = image_size
    if mask.shape != (height, width):
        raise InputError(f"The face mask has shape {mask.shape}, but the image needs one of shape {(height, width)}.")
    if not np.isfinite(mask).all():
        raise InputError("The face mask holds values that are not finite numbers: draw it again.")
    notes = []
    if 2 < mask.max() <= 255:
        mask, notes = mask / 255, ["The mask's values reach 255, so they were divided by that: 1 is on the face."]
    return mask.clip(0, 1), notes


def _right_way_round(mask, notes=()):
    """A mask with 1 on the face, and notes: ComfyUI's Load Image gives 1 where a cut-out picture is transparent.

    Raises:
        InputError: the mask covers the border of the picture and is no face either way round.
    """
    face = mask >= 0.5
    border = np.concatenate([face[0], face[-1], face[:, 0], face[:, -1]])
    if not face.any() or (border.mean() < _BORDER and face.mean() < _MOST_FACE):
        return mask, [*notes]
    inside = ~face
    if inside.any():
        x1, y1, x2, y2 = _bounding_box(1 - mask)
        filled = inside.mean() * mask.size / ((x2 - x1) * (y2 - y1))
        if inside.mean() < _MOST_FACE and filled > _LEAST_FILLED and border.mean() > 1 - _BORDER:
            return 1 - mask, [
                *notes,
                "The mask covers the border of the picture, so it was inverted: 1 is where the face is, and Load Image "
                "gives 1 where a picture is transparent.",
            ]
    raise InputError(
        f"The face mask covers {face.mean():.0%} of the picture and {border.mean():.0%} of its border, which no face "
        "does: paint the face alone (Load Image's mask is of what is transparent; Invert Mask turns it round), or give "
        "no mask."
    )


def _face_of(mask):
    """The box around a mask without the specks that a brush or a segmentation left far from the face; and notes."""
    from skimage.measure import label

    parts = label(mask >= 0.5)
    sizes = np.bincount(parts.ravel())[1:]
    box = _bounding_box(mask)
    if len(sizes) < 2:
        return box, []
    kept = _bounding_box(np.isin(parts, 1 + np.flatnonzero(sizes >= _SPECK * sizes.max())).astype(np.float32))
    return kept, [] if kept == box else ["The mask has specks apart from the face, which were left out."]


def _bounding_box(mask):
    face = mask >= 0.5
    if not face.any():
        raise InputError("The face mask is empty (no value reaches 0.5): paint the face white, or give a face box.")
    columns, rows = np.flatnonzero(face.any(axis=0)), np.flatnonzero(face.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
