"""A reference clip, and what is read from it: the interface that every embedder shares.

An embedder is anything with

    read(clip, priors, timeline=False, on_progress=None) -> Reading

where `clip` is a Clip; `priors` is name → Emotion of the eight (NAMES); `timeline` asks for a course instead of one
emotion; and `on_progress(done, total)`, seconds of the clip, total None where it is not known, is called often and may
raise to cancel. It raises NoCue for a clip without any cue that it can use. There are two: the evidence embedder
(`evidence.Evidence`), which needs no weights, and learned ones, loaded from a file (`dicetalk.embedder`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..emotion.options import LONGEST, NAMES
from ..errors import InputError

SAMPLE_RATE = 16000

# MediaPipe's 52 blendshapes in its order: ARKit's without tongueOut, and _neutral before them.
BLENDSHAPES = (
    *("_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff"),
    *("cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight"),
    *("eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight"),
    *("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight"),
    *("mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker"),
    *("mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft"),
    *("mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight"),
    *("noseSneerLeft", "noseSneerRight"),
)


class NoCue(InputError):
    """Nothing in the clip shows an emotion."""


@dataclass(frozen=True)
class Clip:
    """What there is to read from. Each cue is None where it is missing, else a function that opens a new stream of it
    from the clip's start; a stream holds only a short piece of the clip at a time.

    Attributes:
        blendshapes: streams of ((n,) float64 seconds, (n, 52) float32): times that increase, and the face's
            blendshapes there, 0 to 1, columns as BLENDSHAPES; a row of NaN where no face is seen. One face a frame.
        frames: called with the least seconds from one frame to the next, streams of (seconds, (height, width, 3) uint8
            RGB), times that increase; 0 gives all.
        audio: streams of (n,) float32 pieces, n of any size: mono, 16 kHz.
        seconds: the clip's length where it is known, for the progress.
        name: what the clip is called, in one line.
        notes: called after the streams were read: sentences on what was chosen in them, such as which of several faces.
    """

    blendshapes: Callable | None = None
    frames: Callable | None = None
    audio: Callable | None = None
    seconds: float | None = None
    name: str = "clip"
    notes: Callable = tuple


@dataclass(frozen=True)
class Reading:
    """What an embedder read from a clip. Weights have 8 columns as NAMES, 0 or more, and sum to 1.

    Attributes:
        emotion: the Emotion, or the EmotionTimeline that follows the clip.
        times: (steps,) seconds, the middle of each step.
        tracks: cue → (steps, 8) weights over time, rows of NaN where the cue says nothing; at least "combined",
            and "face" and "voice" where the embedder separates them. In the order to show them.
        weights: cue → (8,) weights for the whole clip; the cues are those of `tracks`.
        sureness: cue → 0 (knows nothing) to 1 (certain, all the time); the cues are those of `tracks`.
        notes: sentences that a person should read: what was missing, and what was done about it.
    """

    emotion: Any
    times: np.ndarray
    tracks: dict
    weights: dict
    sureness: dict
    notes: tuple = field(default=())

    def text(self):
        """The weights as a table, how sure, and the notes: several lines."""
        width = max(len(name) for name in NAMES)
        lines = [" " * width + "".join(f"{cue:>10}" for cue in self.tracks)]
        for column in np.argsort(-self.weights["combined"], kind="stable"):
            shares = "".join(f"{self.weights[cue][column]:>10.1%}" for cue in self.tracks)
            lines.append(f"{NAMES[column]:{width}}{shares}")
        lines.append(f"{'how sure':{width}}" + "".join(f"{self.sureness[cue]:>10.1%}" for cue in self.tracks))
        return "\n".join([*lines, *self.notes])


def array_stream(values, fps):
    """`Clip.blendshapes` of a (frames, 52) array at a steady rate."""
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != len(BLENDSHAPES):
        raise InputError(f"The blendshapes have shape {values.shape}: (frames, {len(BLENDSHAPES)}) is needed.")

    def stream():
        for start in range(0, len(values), 1000):
            piece = values[start : start + 1000]
            yield (start + np.arange(len(piece))) / float(fps), piece

    return stream


def check_seconds(seconds):
    """InputError unless all of (n,) seconds, or a number, can be times in a clip: 0 to LONGEST."""
    seconds = np.atleast_1d(seconds)
    if not ((seconds >= 0) & (seconds <= LONGEST)).all():
        wrong = seconds[~((seconds >= 0) & (seconds <= LONGEST))][0]
        raise InputError(
            f"A frame of the clip is at {wrong:g} s, and times are 0 to {LONGEST:g} s from its start: its frames a "
            "second or the times of its frames are wrong."
        )


def waveform_stream(waveform, rate):
    """`Clip.audio` of a (channels, samples) tensor or array at any sampling rate; numbers that are not finite are 0."""

    def stream():
        import soxr

        resample = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        for start in range(0, waveform.shape[1], rate):
            piece = np.asarray(waveform[:, start : start + rate], dtype=np.float32).mean(axis=0)
            yield resample.resample_chunk(np.ascontiguousarray(np.nan_to_num(piece, posinf=0.0, neginf=0.0)))
        yield resample.resample_chunk(np.zeros(0, dtype=np.float32), last=True)

    return stream


FRAME_RATES = 0.1, 1000  # frames a second that are believed
PATIENCE = 0.5  # seconds that a lost face is waited for
