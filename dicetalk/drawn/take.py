"""A take: one person says one sentence in one emotion; pictures, blendshapes and sound that agree by construction."""

from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import numpy as np

from ..emotion.options import CLASSES, FPS, NAMES
from ..errors import InputError
from ..reading.clip import BLENDSHAPES
from . import face
from .expression import COLUMN, expression, head, most, strength
from .person import Person, whole
from .pose import Pose
from .sentences import SENTENCES, phonemes
from .speech import MOUTH, speak

_BOTH = ("Left", "Right")
_ONSET, _OFFSET = 0.45, 0.5  # seconds
_FROM, _TO = 0.25, 0.45  # how much of the expression there is in the first frame, and in the last one


@dataclass(frozen=True)
class Take:
    """Everything in it follows from these five; the same ones give the same pictures, blendshapes and sound.

    Attributes:
        person: Person.
        emotion: one of `dicetalk.emotion.options.NAMES`.
        level: 1 to 3, as MEAD's; 1 for neutral. The highest one when None.
        sentence: text of known words, see `sentences.phonemes`; or a number in SENTENCES.
        seed: of what differs from take to take: small motion, blinks, tempo, melody.

    Raises:
        InputError: for anything that is not as above.
    """

    person: Person
    emotion: str
    level: int | None = None
    sentence: str | int = 0
    seed: int = 0

    def __post_init__(self):
        strength(self.emotion, self.level)
        if self.level is None:
            object.__setattr__(self, "level", most(self.emotion))
        if not isinstance(self.person, Person):
            raise InputError("The person of a take must be a Person: Person.of(number) draws one.")
        if not isinstance(self.sentence, str):
            number = whole(self.sentence, 0, len(SENTENCES) - 1, "sentence")
            object.__setattr__(self, "sentence", SENTENCES[number])
        phonemes(self.sentence)
        object.__setattr__(self, "seed", whole(self.seed, 0, 2**32 - 1, "seed of a take"))

    def __len__(self):
        """Frames, 12.5 a second."""
        return len(self.speech.mouth)

    @property
    def emotion_number(self):
        """Place in NAMES."""
        return NAMES.index(self.emotion)

    @property
    def class_number(self):
        """Place in CLASSES, the 22 of emotion and level."""
        return CLASSES.index((self.emotion, self.level))

    @cached_property
    def speech(self):
        """The Speech: sound, mouth, and the times of the phonemes."""
        return speak(self.sentence, self.person.voice, self.emotion, self._strength, self._random(1))

    @property
    def sound(self):
        """(samples,) float32 at 16 kHz, 1,280 for each frame."""
        return self.speech.sound

    @cached_property
    def blendshapes(self):
        """(frames, 52) float32, 0 to 1, columns as `reading.clip.BLENDSHAPES`: what is drawn."""
        random, frames = self._random(2), len(self)
        moving = expression(self.person, self.emotion, self.level) * self._envelope(random)[:, None]
        moving *= 1 + 0.05 * _drift(random, frames, len(BLENDSHAPES))
        rows = _with_speech(moving, self.speech)
        for name in ("browInnerUp", *(f"browOuterUp{side}" for side in _BOTH)):  # brows live with the voice
            rows[:, COLUMN[name]] += 0.03 * np.maximum(_drift(random, frames), 0)
        self._look_about(rows, random)
        self._blink(rows, random)
        return rows.clip(0, 1).astype(np.float32)

    @cached_property
    def shown(self):
        """(frames,) float64: how much of the expression is there: 0 for none, 0.9 for level 3 when it is held."""
        return self._strength * self._envelope(self._random(2))

    @cached_property
    def opening(self):
        """(frames,) float64: how far the speech alone opens the lips, without the emotion; see `face.lip_gap`."""
        return face.lip_gap(_with_speech(np.zeros((len(self), len(BLENDSHAPES))), self.speech).clip(0, 1))

    @cached_property
    def poses(self):
        """Pose of each frame."""
        random, frames = self._random(3), len(self)
        still, lively = head(self.person, self.emotion, self.level), self.person.manner.lively
        envelope = self._envelope(random)
        loud = self.speech.mouth[:, MOUTH.index("jaw")]
        x = 0.004 * lively * _drift(random, frames)
        y = 0.004 * lively * _drift(random, frames) + 0.006 * lively * (loud - loud.mean())
        roll = 0.016 * lively * _drift(random, frames)
        scale = 0.006 * lively * _drift(random, frames)
        return tuple(
            Pose(*(float(value) for value in row))
            for row in zip(
                envelope * still.x + x,
                envelope * still.y + y,
                envelope * still.roll + roll,
                1 + envelope * (still.scale - 1) + scale,
                strict=True,
            )
        )

    def frames(self, size=64):
        """Yields (size, size, 3) uint8 RGB, one after the other; see `face.draw`."""
        face.check_size(size)
        return (self.frame(number, size) for number in range(len(self)))

    def frame(self, number, size=64):
        """One of the pictures, (size, size, 3) uint8."""
        return np.asarray(face.draw(self.person, self.blendshapes[number], self.poses[number], size))

    def portrait(self, size=64):
        """The person at rest, mouth closed: (size, size, 3) uint8. It is the same for all takes of a person."""
        return np.asarray(face.draw(self.person, size=size))

    def face_box(self, size=64):
        """(x1, y1, x2, y2) pixels, hairline to chin, which hold the face of every frame and of the portrait."""
        every = face.face_box(self.person, self.blendshapes, self.poses, size)
        still = face.face_box(self.person, size=size)
        return *map(min, every[:2], still[:2]), *map(max, every[2:], still[2:])

    # What is random

    @property
    def _strength(self):
        return strength(self.emotion, self.level)

    def _random(self, stream):
        by_name = sorted(CLASSES).index((self.emotion, self.level))
        numbers = self.person.number, by_name, crc32(self.sentence.encode()), self.seed
        return np.random.default_rng([2, stream, *numbers])

    def _envelope(self, random):
        """(frames,) how much of the expression shows: onset, hold with little changes, offset."""
        time, end = (np.arange(len(self)) + 0.5) / FPS, len(self) / FPS
        onset = _FROM + (1 - _FROM) * _ease(time / (_ONSET * np.exp(random.normal(0, 0.2))))
        offset = _TO + (1 - _TO) * _ease((end - time) / (_OFFSET * np.exp(random.normal(0, 0.2))))
        return np.minimum(onset, offset) * (1 + 0.06 * _drift(random, len(self)))

    def _look_about(self, rows, random):
        sideways, upright = 0.12 * _drift(random, len(rows)), 0.08 * _drift(random, len(rows))
        for side, other in zip(_BOTH, reversed(_BOTH)):
            to = np.maximum(sideways if side == "Left" else -sideways, 0)
            rows[:, COLUMN[f"eyeLookOut{side}"]] += to
            rows[:, COLUMN[f"eyeLookIn{other}"]] += to
            rows[:, COLUMN[f"eyeLookUp{side}"]] += np.maximum(upright, 0)
            rows[:, COLUMN[f"eyeLookDown{side}"]] += np.maximum(-upright, 0)

    def _blink(self, rows, random):
        at = random.exponential(1 / self.person.manner.blinks)
        while (first := round(at * FPS)) < len(rows):
            for frame, shut in enumerate((0.55, 1.0, 0.35)):
                if 0 < first + frame < len(rows):
                    for side in _BOTH:
                        column = rows[:, COLUMN[f"eyeBlink{side}"]]
                        column[first + frame] = max(column[first + frame], shut)
            at += 0.6 + random.exponential(1 / self.person.manner.blinks)


def _with_speech(rows, speech):
    """Expression and speech in one face: (frames, 52).

    Mouths move by both, each with less room where the other one is; for p, b and m the lips close whatever the emotion.
    """
    rows = rows.copy()
    jaw, funnel, pucker, wide, roll, closure = speech.mouth.T
    open_ = 1 - closure

    def column(name):
        return rows[:, COLUMN[name]]

    held = column("jawOpen") * (0.4 - 0.2 * speech.speaking)  # a mouth that speaks is not held open by surprise or fear
    column("jawOpen")[:] = held + jaw * (1 - held) * (1 + 0.35 * column("jawOpen"))
    column("jawOpen")[:] *= 1 - 0.4 * closure
    column("mouthClose")[:] = closure * column("jawOpen")
    column("mouthFunnel")[:] += 0.7 * funnel * open_
    column("mouthPucker")[:] += 0.8 * pucker * (1 - 0.3 * closure)
    column("mouthRollLower")[:] += np.maximum(roll, 0.4 * closure)
    column("mouthRollUpper")[:] += 0.4 * closure
    apart = np.clip(2 * jaw, 0, 1) * open_
    for side in _BOTH:
        column(f"mouthStretch{side}")[:] += 0.3 * wide
        column(f"mouthPress{side}")[:] *= 1 - 0.5 * apart
        column(f"mouthUpperUp{side}")[:] *= open_
        column(f"mouthLowerDown{side}")[:] = (column(f"mouthLowerDown{side}") + 0.1 * apart) * open_
        column(f"mouthSmile{side}")[:] *= 1 - 0.35 * pucker
        column(f"mouthFrown{side}")[:] *= 1 - 0.3 * pucker
    return rows


def _drift(random, frames, columns=None):
    """(frames,) or (frames, columns): slow random motion of unit variance, at most two deviations."""
    reach = 6
    shape = (frames + 2 * reach,) if columns is None else (frames + 2 * reach, columns)
    noise = random.standard_normal(shape)
    kernel = np.hanning(2 * reach + 3)[1:-1]
    kernel /= np.sqrt((kernel**2).sum())
    smooth = [weight * noise[place : place + frames] for place, weight in enumerate(kernel)]
    return np.sum(smooth, axis=0).clip(-2, 2)


def _ease(values):
    values = values.clip(0, 1)
    return values * values * (3 - 2 * values)
