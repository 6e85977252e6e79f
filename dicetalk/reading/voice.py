"""How a voice sounds: windows of sound, and the emotions that its prosody goes with.

Prosody shows how aroused a speaker is far better than whether the speaker feels well or ill: anger, fear, joy and
surprise all raise pitch, its range, loudness, rate and the share of high frequencies, and sadness lowers them (Scherer,
"Vocal communication of emotion", Speech Communication 40, 2003; Juslin and Laukka, "Communication of emotions in vocal
expression and music performance", Psychological Bulletin 129, 2003). So nothing but arousal is taken from it here, in
one number, and emotions of the same arousal stay equal. The numbers below follow the order of those reviews; they are
this project's choice, not fitted to recordings.
"""

import functools

import numpy as np

from ..emotion.options import NAMES
from .clip import SAMPLE_RATE

WINDOW, HOP = 4.0, 2.0  # seconds
_SHORTEST = 0.5
_SILENCE = 10 ** (-55 / 20)  # of full scale, root mean square

AROUSAL = {  # against conversation, in deviations of the measures below
    **{"angry": 0.7, "fear": 0.6, "happy": 0.6, "surprised": 0.6},
    **{"disgusted": 0.1, "contempt": 0.0, "neutral": 0.0, "sad": -0.6},
}
_SPREAD = 0.6  # of the arousal that speakers show in one and the same emotion

# Measure → its weight, usual value and deviation in conversation. The pitch and the loudness of a voice at rest differ
# too much by speaker and microphone: both are compared with the clip's own median, so they show its course only.
_MEASURES = {
    "pitch range": (0.25, 2.0, 1.0),  # deviation in semitones, of the voiced parts of a window
    "pitch": (0.2, 0.0, 3.0),  # semitones from the clip's median
    "loudness": (0.15, 0.0, 6.0),  # dB from the clip's median
    "rate": (0.2, 5.0, 1.5),  # onsets a second, a little more than syllables
    "tilt": (0.2, -8.0, 5.0),  # dB: 1 to 5 kHz against 50 to 1000 Hz, in voiced parts
}
_LARGEST = 2.0  # deviations

_FMIN, _FMAX = 65.0, 500.0
_LOWEST = 1.03 * _FMIN  # pyin finds whatever lies below its range, such as mains hum, at the range's very end
_FRAME, _STRIDE = 1024, 320
_HEARD = 512  # samples that the speech detector hears at once
_ENOUGH = 0.5  # of a window: the rest of it may be pauses
_LEAST_PRESENCE = 0.02


def windows(pieces, seconds=WINDOW, hop=HOP):
    """Cut streamed sound into overlapping windows.

    Args:
        pieces: (n,) float32 arrays, mono at 16 kHz.
        seconds, hop: a window's length, and the time from one to the next.

    Yields:
        (start, end, samples): times in seconds. The last one may be shorter, and what is shorter than half a second is
        filled up with silence.
    """
    length, step = round(seconds * SAMPLE_RATE), round(hop * SAMPLE_RATE)
    waiting, held, start = [], 0, 0
    for piece in pieces:
        waiting.append(np.asarray(piece, dtype=np.float32))
        held += len(waiting[-1])
        while held >= length:
            samples = np.concatenate(waiting)
            yield start / SAMPLE_RATE, (start + length) / SAMPLE_RATE, samples[:length]
            waiting, held, start = [samples[step:]], held - step, start + step
    overlap = length - step if start else 0
    if held > overlap:
        samples = np.concatenate(waiting)
        end = (start + held) / SAMPLE_RATE
        least = round(_SHORTEST * SAMPLE_RATE)
        yield start / SAMPLE_RATE, end, np.pad(samples, (0, max(0, least - len(samples))))


def is_silent(samples):
    """Whether a window is silence or all but that: below -55 dB of full scale."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) < _SILENCE


class Prosody:
    """Hears one window after the other, then gives the emotions of all; it keeps six numbers a window."""

    def __init__(self):
        self._heard = []

    def hear(self, samples):
        """Measure a window, (n,) mono at 16 kHz, half a second or more."""
        self._heard.append([np.nan] * (len(_MEASURES) + 1) if is_silent(samples) else _measure(samples))

    def shares(self):
        """What was heard: (windows, 8) shares of the emotions, and (windows,) how much of it is speech, 0 to 1.

        Silent windows are NaN in both. What is no speech gives even shares.
        """
        heard = np.array(self._heard, dtype=np.float64).reshape(len(self._heard), len(_MEASURES) + 1)
        measured, speech = heard[:, :-1], heard[:, -1]
        spoken = measured[speech > 0.5] if (speech > 0.5).any() else measured[speech > 0]
        for column, name in enumerate(_MEASURES):
            if name in ("pitch", "loudness") and len(spoken):
                measured[:, column] -= np.median(spoken[:, column])
        arousal = arousal_of(measured)
        distances = (arousal[:, None] - np.array([AROUSAL[name] for name in NAMES])) / _SPREAD
        shares = np.exp(-(distances**2) / 2 * speech[:, None])
        return shares / shares.sum(1, keepdims=True), np.maximum(speech, _LEAST_PRESENCE)


def arousal_of(measured):
    """(n, 5) measures → (n,), from -1, calm, to 1, aroused; 0 is usual."""
    weights, usual, deviations = np.array(list(_MEASURES.values())).T
    each = np.clip((measured - usual) / deviations, -_LARGEST, _LARGEST)
    return np.clip(each @ (weights / weights.sum()), -1, 1)


def speech_in(samples):
    """How probable speech is in each 32 ms of a window, (n,) mono at 16 kHz: (n // 512,), 0 to 1.

    By Silero VAD (Silero Team, "Silero VAD: pre-trained enterprise-grade Voice Activity Detector", 2024), whose weights
    come in its package.
    """
    import torch

    detector = _detector()
    detector.reset_states()
    pieces = torch.from_numpy(np.ascontiguousarray(samples[: len(samples) // _HEARD * _HEARD], dtype=np.float32))
    with torch.no_grad():
        return np.array([detector(piece, SAMPLE_RATE).item() for piece in pieces.view(-1, _HEARD)])


@functools.cache
def _detector():
    import torch

    threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad  # which leaves the whole process one thread

        return load_silero_vad()
    finally:
        torch.set_num_threads(threads)


def _measure(samples):
    """The measures of a window, then how much of it is speech."""
    import librosa

    pitch, voiced, _ = librosa.pyin(
        samples, fmin=_FMIN, fmax=_FMAX, sr=SAMPLE_RATE, frame_length=_FRAME, hop_length=_STRIDE, resolution=0.25
    )
    spoken = speech_in(samples) > 0.5
    moments = np.minimum(np.arange(len(voiced)) * _STRIDE // _HEARD, len(spoken) - 1)
    voiced = voiced & (np.nan_to_num(pitch) > _LOWEST) & spoken[moments]
    level = librosa.feature.rms(y=samples, frame_length=_FRAME, hop_length=_STRIDE)[0][: len(voiced)]
    onsets = librosa.onset.onset_detect(y=samples, sr=SAMPLE_RATE, hop_length=_STRIDE)
    loud = level > 0.1 * level.max()
    speech = min(float(spoken.mean()) / _ENOUGH, 1.0)
    if not voiced.any():
        return [*(usual for _, usual, _ in _MEASURES.values()), speech]
    semitones = 12 * np.log2(pitch[voiced] / _FMIN)
    low, high = np.percentile(semitones, (10, 90))
    power = np.abs(librosa.stft(samples, n_fft=_FRAME, hop_length=_STRIDE)[:, : len(voiced)]) ** 2
    power = power[:, voiced].sum(1)
    hertz = librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=_FRAME)
    bright, dark = power[(hertz >= 1000) & (hertz < 5000)].sum(), power[(hertz >= 50) & (hertz < 1000)].sum()
    measures = {
        "pitch range": (high - low) / 2.563,  # as the deviation of a normal distribution
        "pitch": np.median(semitones),
        "loudness": 20 * np.log10(np.sqrt(np.mean(level[voiced] ** 2)) + 1e-9),
        "rate": len(onsets) / (loud.mean() * len(samples) / SAMPLE_RATE),
        "tilt": 10 * np.log10((bright + 1e-12) / (dark + 1e-12)),
    }
    return [*(float(measures[name]) for name in _MEASURES), speech]
