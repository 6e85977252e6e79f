"""A video in the place of the portrait: its pictures at the model's frame rate, cut and resized alike."""

import itertools
from dataclasses import replace
from typing import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from ..emotion.options import FPS
from ..errors import InputError
from ..memory import free_memory, require_memory
from .faces import find_faces
from .portrait import PreparedPortrait, prepare_portrait

SPARE = 3  # frames that speech may have more than the video: sound tracks end a little later than pictures
_SEARCH_EVERY = 12  # frames, about a second: searching takes longer than all else here
_LEAST_OVERLAP = 0.25  # of the smaller box, for a face to be the one of the frame before

Timed = Iterable[tuple[float, np.ndarray]]


def steady(timed: Timed, fps: float = FPS) -> Iterator[np.ndarray]:
    """The picture that is shown at 0, 1/fps, 2/fps … seconds, until the video ends.

    Args:
        timed: (seconds, (height, width, 3) uint8) pictures, by time; the last one lasts as long as the one before.
    """
    shown: np.ndarray | None = None
    count, begun, lasts = 0, 0.0, 1 / FPS
    for seconds, picture in timed:
        while shown is not None and count / fps < seconds - 1e-6:
            yield shown
            count += 1
        if shown is not None:
            lasts = seconds - begun
        shown, begun = picture, seconds
    while shown is not None and count / fps < begun + lasts - 1e-6:
        yield shown
        count += 1


def prepare_video(
    opened: Callable[[], Timed],
    most: int | None,
    face_box=None,
    short_side=512,
    crop=False,
    expand_ratio=0.5,
    name="video",
    mask=None,
) -> PreparedPortrait:
    """A video's pictures as the model takes them, 12.5 a second, all cut and resized alike.

    The face is looked for in the first picture, and followed from there: the mask, and the crop, hold it wherever it
    goes. As published, the mask is one for the whole clip.

    Args:
        opened: opens the pictures, as `steady` takes them; called twice.
        most: frames to read at most; None for all.
        face_box, short_side, crop, expand_ratio, mask: as `prepare_portrait` takes them, for the first picture.
        name: how an error calls the video.

    Returns:
        PreparedPortrait of the first picture, with `frames`.

    Raises:
        InputError: no pictures, pictures of changing size, a face that cannot be used, or too little memory.
    """
    first: Image.Image | None = None
    boxes: list[tuple] = []
    count = 0
    for picture in itertools.islice(steady(opened()), most):
        if first is None:
            first = Image.fromarray(picture)
            found = prepare_portrait(first, face_box, short_side, crop, expand_ratio, mask)
            boxes.append(found.face_box)
        elif picture.shape != (first.height, first.width, 3):
            raise InputError(f"The pictures of {name} change their size at {count / FPS:.2f} s: export it in one size.")
        elif count % _SEARCH_EVERY == 0:
            boxes.append(_nearest(find_faces(Image.fromarray(picture)), boxes[-1]))
        count += 1
    if first is None:
        raise InputError(f"{name} holds no pictures in that part: give another video, or another part of it.")
    whole = *np.min(boxes, axis=0)[:2].tolist(), *np.max(boxes, axis=0)[2:].tolist()
    prepared = prepare_portrait(first, whole, short_side, crop, expand_ratio)
    width, height = prepared.image.size
    require_memory(
        name,
        count,
        height * width * 3,
        free_memory("cpu"),
        lambda seconds: f"give {seconds} s of it at most (--length {seconds})",
    )
    frames = np.empty((count, height, width, 3), np.uint8)
    for number, picture in enumerate(itertools.islice(steady(opened()), count)):
        part = Image.fromarray(picture).crop(prepared.crop_box)
        frames[number] = part.resize((width, height), Image.Resampling.LANCZOS)
    return replace(prepared, notes=found.notes, warnings=found.warnings, frames=frames)


def fitted(video, frames: int):
    """As many of a video's frames as the speech has.

    Args:
        video: (N, …) array or tensor, 12.5 a second.
        frames: of the speech. The last ones, up to `SPARE`, repeat the video's last; what the video has more is left
            out.

    Raises:
        InputError: the speech is longer than the video.
    """
    if frames > len(video) + SPARE:
        raise InputError(
            f"The speech lasts {frames / FPS:.2f} s and the video {len(video) / FPS:.2f} s: give a longer video, or "
            f"set the length of the speech to {len(video) / FPS:.2f} s (--length {len(video) / FPS:.2f})."
        )
    return video[np.minimum(np.arange(frames), len(video) - 1).tolist()]


def _nearest(boxes, last):
    """The box that overlaps most with the last one; the last one where none does."""

    def overlap(box):
        width = min(box[2], last[2]) - max(box[0], last[0])
        height = min(box[3], last[3]) - max(box[1], last[1])
        return max(width, 0) * max(height, 0) / min(_area(box), _area(last))

    best = max(boxes, key=overlap, default=last)
    return best if overlap(best) >= _LEAST_OVERLAP else last


def _area(box):
    return (box[2] - box[0]) * (box[3] - box[1])
