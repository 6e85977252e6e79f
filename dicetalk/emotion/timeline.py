"""Emotions placed in time."""

import hashlib
import json
import reprlib
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from ..errors import InputError
from .mixing import between
from .options import EASINGS, LONGEST, check_number
from .value import Emotion, TokenMix, _Compared, check_label


@dataclass(frozen=True)
class TimelineKey:
    """An emotion at a time.

    Attributes:
        time: seconds from the clip's start, 0 to 172,800 (LONGEST).
        emotion: an Emotion or TokenMix.
        easing: how it is reached from the key before: "linear"; "smooth", slow at both ends (3t² - 2t³); "step", the
            emotion before holds until this time. The first key's has nothing to lead from and is ignored.
    """

    time: float
    emotion: Emotion
    easing: str = "linear"

    def __post_init__(self):
        object.__setattr__(self, "time", check_number(self.time, 0.0, LONGEST, "time of an emotion in a timeline"))
        if not isinstance(self.emotion, (Emotion, TokenMix)):
            raise InputError("A timeline consists of single emotions; it cannot hold another timeline.")
        if self.easing not in EASINGS:
            raise InputError(f"The easing must be one of {', '.join(EASINGS)}, not {reprlib.repr(self.easing)}.")


@dataclass(frozen=True, eq=False)
class EmotionTimeline(_Compared):
    """Emotions at seconds; the first is held before its time, the last after its own.

    Two neighbours meet along the Wasserstein-2 geodesic of their Gaussians, or, where their bank options differ or one
    is a mix by tokens, in their tokens.

    Attributes:
        keys: TimelineKeys, ordered by time here in whatever order they are given.
        name: what people call it.
        provenance: where it came from, in one line of text.

    Raises:
        InputError: without keys, or when two share a time.
    """

    keys: tuple
    name: str = ""
    provenance: str = ""

    def __post_init__(self):
        keys = sorted(self.keys, key=lambda key: key.time)
        if not keys:
            raise InputError("A timeline needs at least one emotion.")
        for earlier, later in pairwise(keys):
            if earlier.time == later.time:
                raise InputError(f"A timeline cannot hold two emotions at {later.time:g} s: move or remove one.")
        keys[0] = replace(keys[0], easing="linear")
        object.__setattr__(self, "keys", tuple(keys))
        object.__setattr__(self, "_times", [key.time for key in keys])
        check_label(self.name, "name")
        check_label(self.provenance, "provenance")

    @cached_property
    def _digest(self):
        keys = [[key.time, key.easing, key.emotion.digest()] for key in self.keys]
        return hashlib.sha256(json.dumps(["timeline", keys]).encode()).hexdigest()

    def at(self, seconds):
        """The emotion at a time: an Emotion, or a TokenMix where neighbours meet in their tokens."""
        after = bisect_right(self._times, seconds)
        if after == 0:
            return self.keys[0].emotion
        if after == len(self.keys):
            return self.keys[-1].emotion
        start, end = self.keys[after - 1], self.keys[after]
        share = (seconds - start.time) / (end.time - start.time)
        if end.easing == "smooth":
            share = share * share * (3 - 2 * share)
        elif end.easing == "step":
            share = 0.0
        return between(start.emotion, end.emotion, share)

    def _each(self, change):
        return replace(self, keys=tuple(replace(key, emotion=change(key.emotion)) for key in self.keys))

    def with_intensity(self, neutral, intensity):
        """The timeline with every emotion at that intensity; see `Emotion.with_intensity`."""
        return self._each(lambda emotion: emotion.with_intensity(neutral, intensity))

    def varied(self, seed, strength=1.0):
        """The timeline with every emotion varied by the same seed; see `Emotion.varied`."""
        return self._each(lambda emotion: emotion.varied(seed, strength))

    def with_bank(self, bank=None, **changes):
        """The timeline with other bank options for every emotion; see `Emotion.with_bank`."""
        return self._each(lambda emotion: emotion.with_bank(bank, **changes))

    def renamed(self, name, provenance=None):
        """The timeline under another name, and another provenance unless that is None."""
        return replace(self, name=name, provenance=self.provenance if provenance is None else provenance)


def late_keys(emotion, seconds):
    """A note on the first emotion of a timeline that a clip of so many seconds never reaches, else none."""
    for key in emotion.keys if isinstance(emotion, EmotionTimeline) else ():
        if key.time > seconds:
            return (f"The emotion at {key.time:g} s comes after the end of the clip, which lasts {seconds:.2f} s.",)
    return ()
