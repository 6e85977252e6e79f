"""A take as files: video with sound, landmarks and portrait."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import write_errors, written_beside
from ..reading.clip import BLENDSHAPES
from .face import check_size
from .speech import FPS, SAMPLE_RATE


def write_take(take, path, size=256):
    """Write a take, and beside it what goes with it; existing files are replaced.

    Args:
        take: Take.
        path: PATH.mp4, H.264 and AAC at 12.5 frames a second. PATH.csv gets the blendshapes of its frames, as
            `emotion from-clip --landmarks` reads them, and PATH.png the portrait: at rest, mouth closed.
        size: pixels of a side, an even number.

    Returns:
        The paths of the video, the landmarks and the portrait.

    Raises:
        InputError: another ending or size, or a file that cannot be written.
    """
    from ..media.video import write_video

    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: a take is a video; end its name with .mp4.")
    check_size(size)
    if size % 2:
        raise InputError(f"The size of a video is {size!r}: give an even number.")
    landmarks, portrait = path.with_suffix(".csv"), path.with_suffix(".png")
    picture = io.BytesIO()
    Image.fromarray(take.portrait(size)).save(picture, format="PNG")
    facts = {"person": take.person.number, "emotion": take.emotion, "level": take.level}
    facts |= {"sentence": take.sentence, "seed": take.seed}
    write_video(path, take.frames(size), FPS, take.sound, SAMPLE_RATE, metadata={"drawn": facts})
    for target, content in ((landmarks, _csv(take.blendshapes).encode()), (portrait, picture.getvalue())):
        with written_beside(target) as part, write_errors(target):
            part.write_bytes(content)
    return path, landmarks, portrait


def _csv(blendshapes):
    lines = [",".join(("time", *BLENDSHAPES))]
    for number, row in enumerate(np.asarray(blendshapes)):
        lines.append(",".join((f"{number / FPS:.2f}", *(f"{value:.4f}" for value in row))))
    return "\n".join(lines) + "\n"
