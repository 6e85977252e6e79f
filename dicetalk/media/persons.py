"""The persons of one picture: which faces, and a crop for each that shows no other one's face."""

from dataclasses import replace

from ..errors import InputError
from .faces import faces_from_left, parse_face
from .portrait import PreparedPortrait, check_box, face_crop, mask_rectangle, prepare_portrait

_STEP = 0.05


def prepare_persons(
    image, persons: int, faces: str = "", short_side=512, margin=0.5, name="The picture"
) -> list[PreparedPortrait]:
    """Each person's own crop of a picture with several.

    Args:
        image: PIL image.
        persons: how many are wanted.
        faces: which ones, with semicolons between them, each as `parse_face` takes it; empty for all, from the left.
        short_side: of each crop, as in `prepare_portrait`.
        margin: how much is kept around each face, as a share of its size; less where a crop would reach into another
            one's face.
        name: how an error calls the picture.

    Returns:
        The portraits, in the order of `faces`.

    Raises:
        InputError: there are not as many faces; one is chosen twice; or two are too near to each other.
    """
    image = image.convert("RGB")
    boxes = _boxes(image, persons, faces, name)
    prepared = []
    for number, box in enumerate(boxes):
        others = [_mask_box(other, image.size) for place, other in enumerate(boxes) if place != number]
        own = _margin(box, others, image.size, margin)
        if own is None:
            raise InputError(
                f"The face of person {number + 1} is too near to another one: give smaller boxes in faces, or a "
                "picture in which they are apart."
            )
        portrait = prepare_portrait(image, box, short_side, crop=True, expand_ratio=own)
        x1, y1, x2, y2 = map(round, box)
        prepared.append(replace(portrait, notes=(f"Person {number + 1} is at {x1},{y1},{x2},{y2}.",)))
    return prepared


def _margin(box, others, size, most):
    """The largest margin up to `most` at which the crop meets none of the other boxes; None where there is none."""
    margins = [most - step * _STEP for step in range(int(most / _STEP) + 1)]
    return next(
        (each for each in (*margins, 0.0) if not any(_meet(face_crop(box, size, each), other) for other in others)),
        None,
    )


def _boxes(image, persons, faces, name):
    chosen = [parse_face(part, "faces") for part in map(str.strip, faces.split(";")) if part]
    if chosen and len(chosen) != persons:
        raise InputError(f"faces names {len(chosen)} and there are {persons} persons: name one for each, as in 1; 2.")
    if chosen and all(isinstance(each, tuple) for each in chosen):
        return [check_box(each, image.size) for each in chosen]
    found = faces_from_left(image, persons)
    places = "; ".join(",".join(str(round(value)) for value in box) for box in found)
    if not chosen and len(found) != persons:
        raise InputError(
            f"{name} has {len(found)} faces that were found, and there are {persons} persons: say which in faces, by "
            f"numbers from the left as in 1; 3, or by boxes as in 180,60,320,250; 400,60,540,250. Found: "
            f"{places or 'none'}."
        )
    boxes = []
    for each in chosen or range(1, persons + 1):
        if isinstance(each, tuple):
            boxes.append(check_box(each, image.size))
            continue
        place = {"left": 1, "right": len(found)}.get(each, each)
        if each == "largest":
            place = 1 + max(range(len(found)), key=lambda n: found[n][2] - found[n][0], default=0)
        if not 1 <= place <= len(found):
            raise InputError(f"faces asks for {each}, and {len(found)} were found from the left: {places or 'none'}.")
        boxes.append(found[place - 1])
    for number, box in enumerate(boxes):
        if box in boxes[:number]:
            raise InputError(f"faces names one face twice, as {boxes.index(box) + 1} and as {number + 1}: name others.")
    return boxes


def _mask_box(box, size):
    """Where the mask of another face is, x1, y1, x2, y2."""
    left, right, top, bottom = mask_rectangle(box, size)
    return left, top, right, bottom


def _meet(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
