"""Takes as files: a video with its landmarks and portrait, or folders of recordings."""

import io
import wave
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

from ..emotion.options import FPS
from ..errors import InputError
from ..files import write_errors, written_beside
from ..media.image import save_png
from ..reading.clip import BLENDSHAPES
from .face import check_size
from .sentences import SENTENCES
from .speech import SAMPLE_RATE


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
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: a take is a video; end its name with .mp4.")
    landmarks, portrait = path.with_suffix(".csv"), path.with_suffix(".png")
    _write_video(take, path, size)
    _write(landmarks, _csv(take.blendshapes).encode())
    save_png(Image.fromarray(take.portrait(size)), portrait)
    return path, landmarks, portrait


def write_recordings(folder, takes, size=None):
    """Write takes as `train-embedder` reads recordings: ACTOR/EMOTION/LEVEL/CLIP.wav and CLIP.csv.

    Args:
        folder: where; files of the same names are replaced.
        takes: iterable of Takes.
        size: pixels of a side, an even number, to write CLIP.mp4 too; None for sound and landmarks alone.

    Yields:
        (take, path of its .wav) when its files are written.

    Raises:
        InputError: a size that cannot be, or a file that cannot be written.
    """
    for take in takes:
        place = Path(folder) / f"person_{take.person.number}" / take.emotion / f"level_{take.level}"
        known = take.sentence in SENTENCES
        sentence = f"{SENTENCES.index(take.sentence):02}" if known else f"{crc32(take.sentence.encode()):08x}"
        path = place / f"{sentence}_{take.seed}.wav"
        _write(path, wav(take.sound))
        _write(path.with_suffix(".csv"), _csv(take.blendshapes).encode())
        if size is not None:
            _write_video(take, path.with_suffix(".mp4"), size)
        yield take, path


def _write(path, content):
    with written_beside(path) as part, write_errors(path):
        part.write_bytes(content)


def wav(sound):
    """The bytes of a WAV file, 16 bits, of (samples,) sound at 16 kHz in -1 to 1."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, len(sound), "NONE", ""))
        file.writeframes((sound.astype(np.float64) * 32768).round().clip(-32768, 32767).astype("<i2").tobytes())
    return content.getvalue()


def _write_video(take, path, size):
    from ..media.video import write_video

    check_size(size)
    if size % 2:
        raise InputError(f"The size of a video is {size!r}: give an even number.")
    facts = {"person": take.person.number, "emotion": take.emotion, "level": take.level}
    facts |= {"sentence": take.sentence, "seed": take.seed}
    write_video(path, take.frames(size), FPS, take.sound, SAMPLE_RATE, metadata={"drawn": facts})


def _csv(blendshapes):
    lines = [",".join(("time", *BLENDSHAPES))]
    for number, row in enumerate(np.asarray(blendshapes)):
        lines.append(",".join((f"{number / FPS:.2f}", *(f"{value:.4f}" for value in row))))
    return "\n".join(lines) + "\n"
