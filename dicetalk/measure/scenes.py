"""What measuring dialogues and remade videos shares: drawn people's files, as the commands read and write them.

People and sentences are held out, as in `goals`; what the video shows is read by the reader of drawn people.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..drawn import Take
from ..drawn.files import wav
from ..drawn.splits import sentences
from ..job import Job
from .drawn_clips import Sampling, correlation
from .goals import speech
from .reader import DrawnReader

_LARGER = 2  # the pictures and videos that are given have so many times the model's pixels


@dataclass(frozen=True)
class Scenes:
    """How scenes are made and read.

    Attributes:
        checkpoint: name or folder of the weights.
        reader: DrawnReader.
        folder: where the files go.
        render_dialogue: `dicetalk.batch.dialogue.render_dialogue`, or what takes its place.
        sampling: of it steps and scales count.
        size: pixels of a side of a person's crop, a multiple of 64.
        frames: of a clip at most.
        seed: of the noise.
        device: as a Job's.
    """

    checkpoint: str
    reader: DrawnReader
    folder: Path
    render_dialogue: Callable
    sampling: Sampling = Sampling()
    size: int = 64
    frames: int = 25
    seed: int = 0
    device: str | None = None

    @property
    def side(self):
        """Pixels of a side of a drawing that is given."""
        return _LARGER * self.size

    def job(self, name, **fields):
        """A Job that writes NAME.mp4."""
        settings = {"checkpoint": self.checkpoint, "size": self.size, "fps": "12.5", "device": self.device}
        settings |= {"steps": self.sampling.steps, "reference_scale": self.sampling.reference_scale}
        settings |= {"emotion_scale": self.sampling.emotion_scale, "seed": self.seed}
        return Job.of(settings | {"output": self.folder / f"{name}.mp4"} | fields)

    def sound_file(self, name, sound):
        path = self.folder / f"{name}.wav"
        path.write_bytes(wav(sound))
        return path


def least_alike(take, person, emotion, frames) -> Take:
    """Of the person's held-out takes of another sentence, the one whose track has least in common with a take's: short
    tracks correlate by chance, and a mouth that followed one would follow the other too."""
    every = [speech(person, emotion, place) for place in range(len(sentences("held-out")))]

    def alike(other):
        count = min(len(take), len(other), frames)
        return abs(correlation(take.opening[:count], other.opening[:count]))

    return min((other for other in every if other.sentence != take.sentence), key=alike)


def frames_of(path) -> np.ndarray:
    """(n, height, width, 3) uint8 of a whole video."""
    from ..reading.streams import stream_frames

    return np.stack([picture for _, picture in stream_frames(path)])
