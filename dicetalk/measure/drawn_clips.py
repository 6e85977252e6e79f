"""Clips of drawn people to ask a checkpoint for, what it makes of them, and what the reader reads off that."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import torch
from PIL import Image

from ..drawn import Person, Take
from ..drawn.face import face_box
from ..emotion.options import NAMES
from ..emotion.timeline import EmotionTimeline
from ..emotion.value import Emotion, TokenMix
from ..media.portrait import PreparedPortrait, prepare_portrait
from ..model.audio import SAMPLES_PER_FRAME
from ..model.settings import EMOTION_SCALE, REFERENCE_SCALE
from ..pipeline import DiceTalkPipeline
from ..sampling.loop import sample
from ..sampling.schedules import make_scheduler, sigmas_of
from ..sampling.speed import Savings
from ..sampling.windows import WINDOW
from .reader import DrawnReader, of_clip

_OPEN = 0.1  # a mouth's opening with which speech begins


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled; the defaults are the published settings.

    Attributes:
        window, overlap: frames of a window, and how many of them the next one shares.
        guidance_interval: lowest and highest sigma that are guided, or None.
        sampler, schedule, guidance_reuse, deep_cache, clamp_windows: as `DiceTalkPipeline` takes them.
    """

    steps: int = 25
    reference_scale: float = REFERENCE_SCALE
    emotion_scale: float = EMOTION_SCALE
    guidance_interval: tuple[float, float] | None = None
    window: int = WINDOW
    overlap: int = 0
    sampler: str | None = None
    schedule: str | None = None
    guidance_reuse: int = 1
    deep_cache: int = 1
    clamp_windows: bool = False


@dataclass(frozen=True)
class Asked:
    """A clip to make.

    Attributes:
        person: whose portrait it is.
        take: whose sound it is: a drawn take, of this person or of another one.
        emotion: what is asked for: an Emotion, a mix, or a timeline.
        about: what it is for and what it should show; JSON's values.
    """

    person: Person
    take: Take
    emotion: Emotion | TokenMix | EmotionTimeline
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What was read off a clip.

    Attributes:
        asked: Asked.
        frames: `DrawnReader.read` of its frames.
        clip: `of_clip` of them.
        seconds: that sampling took; 0 for a drawn take.
    """

    asked: Asked
    frames: dict[str, np.ndarray]
    clip: dict[str, Any]
    seconds: float

    @property
    def named(self):
        """The emotion that is read, of NAMES."""
        return NAMES[int(self.clip["emotion"].argmax())]

    def lips(self, take=None):
        """Correlation, at lag 0, of the mouth with the opening of the clip's own speech.

        With another take's: from the frame on at which both have begun, as every speech begins with a closed mouth.
        """
        own, first = self.asked.take.opening, 0
        opening = own if take is None else take.opening
        if take is not None:
            first = max(int(np.argmax(each > _OPEN)) for each in (own, opening))
        frames = min(len(opening), len(self.frames["mouth"]))
        return correlation(self.frames["mouth"][first:frames], opening[first:frames])


def correlation(first, second):
    """Pearson's, 0 where one of the two does not move, or is over."""
    if len(first) < 2 or min(np.std(first), np.std(second)) < 1e-6:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


class Studio:
    """Makes clips with a checkpoint, and reads them.

    Args:
        pipeline: DiceTalkPipeline, on its device.
        reader: DrawnReader.
        size: pixels of a side of the portraits, a multiple of 64.
        frames: of a clip at most; longer speech is cut.
        seed: of the noise.
        on_clip: called with the Result of each clip that is made, and its frames (n, size, size, 3) uint8.
    """

    def __init__(
        self,
        pipeline: DiceTalkPipeline,
        reader: DrawnReader,
        size: int = 64,
        frames: int = 25,
        seed: int = 0,
        on_clip: Callable[[Result, np.ndarray], None] | None = None,
    ):
        self.pipeline, self.reader = pipeline, reader
        self.size, self.frames, self.seed = size, frames, seed
        self._on_clip = on_clip
        self._portraits: dict[Person, PreparedPortrait] = {}
        self._identities: dict[Person, np.ndarray] = {}

    def portrait(self, person: Person) -> PreparedPortrait:
        """The person at rest, the whole drawing."""
        if person not in self._portraits:
            picture = Image.fromarray(Take(person, "neutral").portrait(self.size))
            self._portraits[person] = prepare_portrait(picture, face_box(person, size=self.size), self.size)
        return self._portraits[person]

    def identity(self, person: Person) -> np.ndarray:
        """The reader's embedding of the person's portrait."""
        if person not in self._identities:
            read = self.reader.read([np.asarray(self.portrait(person).image)])
            self._identities[person] = read["embedding"][0]
        return self._identities[person]

    def nearest(self, result: Result, people) -> list[Person]:
        """The people, those first whose portraits are most like the clip."""
        likeness = [float(self.identity(person) @ result.clip["embedding"]) for person in people]
        return [people[place] for place in np.argsort(likeness)[::-1]]

    @torch.no_grad()
    def make(self, asked: Asked, sampling: Sampling) -> Result:
        """Make a clip and read it. The noise follows from the seed, the person and the sound, so that two clips which
        differ in the emotion or in the settings alone start from the same."""
        pipeline, take = self.pipeline, asked.take
        sound = take.sound[: self.frames * SAMPLES_PER_FRAME]
        conditions = pipeline.encode(self.portrait(asked.person), sound, asked.emotion)
        text = f"{self.seed} {asked.person.number} {take.person.number} {take.sentence}"
        noise = pipeline.prepare_noise(conditions, torch.Generator().manual_seed(crc32(text.encode())))
        began = time.perf_counter()
        latents = self.sample(conditions, noise, sampling)
        seconds = time.perf_counter() - began
        frames = torch.cat(list(pipeline.decode(latents))).permute(0, 2, 3, 1)
        pictures = (frames * 255).round().to(torch.uint8).numpy()
        result = self._read(asked, pictures, seconds)
        if self._on_clip is not None:
            self._on_clip(result, pictures)
        return result

    def sample(self, conditions, noise, sampling: Sampling) -> torch.Tensor:
        """(N, 4, h, w) latents, scaled by 0.18215, of (N + 25, 4, h, w) noise. Another sampler may take its place."""
        return sample(
            self.pipeline.unet,
            conditions,
            noise[: conditions.num_frames + sampling.window],
            self.pipeline.scheduler if sampling.sampler is None else make_scheduler(sampling.sampler),
            sampling.steps,
            sampling.reference_scale,
            sampling.emotion_scale,
            window=sampling.window,
            overlap=sampling.overlap,
            guidance_interval=sampling.guidance_interval,
            savings=Savings(sampling.guidance_reuse, sampling.deep_cache, sampling.clamp_windows),
            sigmas=None if sampling.schedule is None else sigmas_of(sampling.schedule, sampling.steps),
        )

    def draw(self, asked: Asked) -> Result:
        """The drawn take itself, read in the same way: what a perfect clip would get."""
        frames = range(min(len(asked.take), self.frames))
        pictures = np.stack([asked.take.frame(number, self.size) for number in frames])
        return self._read(asked, pictures, 0.0)

    def _read(self, asked, pictures, seconds):
        read = self.reader.read(pictures)
        return Result(asked, read, of_clip(read), seconds)
