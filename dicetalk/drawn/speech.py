"""Speech of drawn people: sound and mouth out of the same phonemes, so that lips and voice agree.

The voice is a source and a filter: pulses, and noise where a consonant hisses, through the vocal tract's resonances
(Klatt, "Software for a cascade/parallel formant synthesizer", JASA 67, 1980). The vowels' formants are the means that
Peterson and Barney measured ("Control methods used in a study of the vowels", JASA 24, 1952); the other numbers, of
consonants, mouths and prosody, are this project's choice.
"""

from dataclasses import dataclass

import numpy as np

from ..emotion.options import FPS
from ..reading.clip import SAMPLE_RATE
from .sentences import PAUSE, phonemes

SAMPLES_PER_FRAME = round(SAMPLE_RATE / FPS)
MOUTH = ("jaw", "funnel", "pucker", "spread", "roll", "closure")

_STEP = 0.005  # seconds, of what is planned
_WINDOW, _HOP, _FFT = 512, 128, 1024
_BANDWIDTHS = (65, 90, 130, 220, 300)  # Hz, of the five formants
_HIGH = (3500, 4500)  # Hz, the fourth and the fifth
_LOUDNESS = 0.07  # root mean square of full scale, of a usual voice while it speaks

# Vowels: milliseconds; formants in Hz, two sets for what glides; and the mouth: jaw, funnel, pucker, spread.
_VOWELS = {
    "AA": (130, ((730, 1090, 2440),), (0.66, 0.0, 0.0, 0.0)),
    "AE": (130, ((660, 1720, 2410),), (0.6, 0.0, 0.0, 0.25)),
    "AH": (80, ((640, 1190, 2390),), (0.42, 0.0, 0.0, 0.0)),
    "AO": (130, ((570, 840, 2410),), (0.56, 0.35, 0.1, 0.0)),
    "AW": (150, ((720, 1250, 2440), (400, 900, 2300)), (0.56, 0.15, 0.2, 0.0)),
    "AY": (145, ((720, 1250, 2440), (360, 2050, 2700)), (0.58, 0.0, 0.0, 0.15)),
    "EH": (100, ((530, 1840, 2480),), (0.46, 0.0, 0.0, 0.18)),
    "ER": (110, ((490, 1350, 1690),), (0.34, 0.2, 0.25, 0.0)),
    "EY": (130, ((500, 1900, 2500), (330, 2250, 2900)), (0.4, 0.0, 0.0, 0.28)),
    "IH": (80, ((390, 1990, 2550),), (0.3, 0.0, 0.0, 0.18)),
    "IY": (110, ((270, 2290, 3010),), (0.24, 0.0, 0.0, 0.38)),
    "OW": (135, ((500, 950, 2400), (350, 830, 2250)), (0.42, 0.35, 0.4, 0.0)),
    "OY": (150, ((550, 880, 2400), (380, 1950, 2600)), (0.46, 0.3, 0.25, 0.0)),
    "UH": (85, ((440, 1020, 2240),), (0.32, 0.1, 0.4, 0.0)),
    "UW": (110, ((300, 870, 2240),), (0.26, 0.1, 0.75, 0.0)),
}
# Consonants: parts of (milliseconds, formants, voice, breath, hiss, the hiss's centre in Hz); and the mouth.
_LIPS, _TIP, _BACK = (300, 950, 2300), (320, 1750, 2650), (300, 2050, 2500)  # where formants go for a closure
_CONSONANTS = {
    "P": (((95, _LIPS, 0, 0, 0, 1000), (14, _LIPS, 0, 0, 0.1, 1100), (22, None, 0, 0.3, 0, 1000)), (0.1, 0, 0, 0)),
    "B": (((90, _LIPS, 0.1, 0, 0, 1000), (12, _LIPS, 0.3, 0, 0.06, 1100)), (0.12, 0, 0, 0)),
    "M": (((95, (280, 1000, 2200), 0.32, 0, 0, 1000),), (0.12, 0, 0, 0)),
    "T": (((55, _TIP, 0, 0, 0, 4500), (16, _TIP, 0, 0, 0.16, 4500), (24, None, 0, 0.3, 0, 3000)), (0.16, 0, 0, 0.1)),
    "D": (((50, _TIP, 0.1, 0, 0, 4000), (12, _TIP, 0.3, 0, 0.1, 4000)), (0.18, 0, 0, 0.05)),
    "N": (((65, (280, 1650, 2600), 0.34, 0, 0, 1000),), (0.18, 0, 0, 0.05)),
    "K": (((60, _BACK, 0, 0, 0, 2000), (18, _BACK, 0, 0, 0.14, 1900), (26, None, 0, 0.3, 0, 2000)), (0.22, 0, 0, 0)),
    "G": (((55, _BACK, 0.1, 0, 0, 2000), (14, _BACK, 0.3, 0, 0.09, 1900)), (0.22, 0, 0, 0)),
    "NG": (((75, (280, 2150, 2700), 0.32, 0, 0, 1000),), (0.22, 0, 0, 0)),
    "CH": (((50, _TIP, 0, 0, 0, 3000), (75, _TIP, 0, 0, 0.22, 2900)), (0.16, 0.5, 0.1, 0)),
    "JH": (((45, _TIP, 0.1, 0, 0, 3000), (55, _TIP, 0.3, 0, 0.15, 2900)), (0.16, 0.5, 0.1, 0)),
    "F": (((95, (320, 1100, 2300), 0, 0, 0.07, 5500),), (0.12, 0, 0, 0)),
    "V": (((65, (320, 1100, 2300), 0.35, 0, 0.04, 5000),), (0.12, 0, 0, 0)),
    "TH": (((90, (330, 1400, 2600), 0, 0, 0.06, 5800),), (0.2, 0, 0, 0.05)),
    "DH": (((50, (330, 1400, 2600), 0.4, 0, 0.03, 5000),), (0.2, 0, 0, 0.05)),
    "S": (((100, (320, 1750, 2600), 0, 0, 0.2, 5600),), (0.1, 0, 0, 0.22)),
    "Z": (((75, (320, 1750, 2600), 0.3, 0, 0.13, 5600),), (0.1, 0, 0, 0.22)),
    "SH": (((105, (320, 1800, 2500), 0, 0, 0.22, 2900),), (0.12, 0.5, 0.1, 0)),
    "HH": (((55, None, 0, 0.4, 0, 1500),), (0.3, 0, 0, 0)),
    "L": (((65, (360, 1150, 2700), 0.6, 0, 0, 1000),), (0.26, 0, 0, 0)),
    "R": (((65, (350, 1150, 1550), 0.6, 0, 0, 1000),), (0.2, 0.15, 0.3, 0)),
    "W": (((70, (300, 680, 2200), 0.5, 0, 0, 1000),), (0.12, 0, 0.8, 0)),
    "Y": (((55, (280, 2200, 3000), 0.55, 0, 0, 1000),), (0.16, 0, 0, 0.28)),
}
_CLOSED = ("P", "B", "M")
_ON_TEETH = ("F", "V")
_SHORTEST_CLOSURE = 0.09  # seconds, more than a frame lasts: each shows in at least one, however fast the speech
_PAUSES = {"first": 0.24, "comma": 0.2, "last": 0.32}


@dataclass(frozen=True)
class Prosody:
    """How an emotion changes a voice, at full strength: semitones, a factor on the pitch's range, one on the rate, dB,
    dB an octave, breath, tremor as a share of the pitch, and semitones at the end of the sentence."""

    pitch: float = 0.0
    range: float = 1.0
    rate: float = 1.0
    loudness: float = 0.0
    brightness: float = 0.0
    breath: float = 0.0
    tremor: float = 0.0
    end: float = -3.0


# The directions follow the reviews that `reading.voice` names.
PROSODY = {
    "angry": Prosody(3.0, 1.6, 1.12, 5.0, 4.0, end=-4.0),
    "contempt": Prosody(-1.5, 0.8, 0.9, -1.0, -1.0, end=-5.0),
    "disgusted": Prosody(-2.0, 1.15, 0.86, 1.0, 0.5, end=-4.5),
    "fear": Prosody(4.5, 1.2, 1.18, 0.0, 2.5, 0.08, 0.03, end=0.0),
    "happy": Prosody(3.5, 1.8, 1.06, 2.0, 2.5, end=-1.0),
    "neutral": Prosody(),
    "sad": Prosody(-2.5, 0.5, 0.8, -5.0, -4.0, 0.07, end=-3.5),
    "surprised": Prosody(4.5, 2.0, 1.0, 2.5, 2.0, end=5.0),
}


@dataclass(frozen=True)
class Speech:
    """What is said.

    Attributes:
        sound: (samples,) float32 at 16 kHz, whole frames of 1,280 samples, in steps of 1/32768.
        mouth: (frames, 6) float64, columns as MOUTH, 0 to 1, in the middle of each frame.
        speaking: (frames,) float64, 0 in pauses, 1 in words.
        phonemes: (name, seconds of its start, and of its end) of each.
    """

    sound: np.ndarray
    mouth: np.ndarray
    speaking: np.ndarray
    phonemes: tuple


def speak(text, voice, emotion="neutral", strength=0.0, random=None):
    """Say a sentence.

    Args:
        text: see `sentences.phonemes`.
        voice: person.Voice.
        emotion, strength: what the prosody shows, and how much, 0 to 1.
        random: a NumPy Generator for what differs from take to take.

    Returns:
        Speech.
    """
    random = random or np.random.default_rng(0)
    prosody, share = PROSODY[emotion], strength
    rate = voice.rate * prosody.rate**share * np.exp(random.normal(0, 0.03))
    plan = _plan(phonemes(text), rate, random)
    steps = sum(round(part["seconds"] / _STEP) for part in plan)
    frames = int(np.ceil(steps * _STEP * FPS - 1e-9))
    tracks = _tracks(plan, round(frames / FPS / _STEP))
    pitch = _pitch(plan, tracks, voice, prosody, share, random)
    sound = _sound(tracks, pitch, voice, prosody, share, frames * SAMPLES_PER_FRAME, random)
    middle = ((np.arange(frames) + 0.5) / FPS / _STEP).astype(int)
    effort = 1 + 0.03 * prosody.loudness * share
    mouth = np.stack([tracks[name][middle] * (effort if name == "jaw" else 1) for name in MOUTH], axis=1).clip(0, 1)
    return Speech(sound, mouth, tracks["speaking"][middle], _named(plan))


# The plan: one part after the other, in which all targets stay the same


def _plan(sounds, rate, random):
    plan = []
    for number, sound in enumerate(sounds):
        name, stressed = sound.rstrip("1"), sound.endswith("1")
        last_word = PAUSE in sounds[number + 1 : number + 4]
        if name == PAUSE:
            kind = "first" if number == 0 else "last" if number == len(sounds) - 1 else "comma"
            rest = {"formants": None, "voice": 0.0, "breath": 0.0, "hiss": 0.0, "centre": 1000}
            parts, mouth = [{"seconds": _PAUSES[kind] * np.exp(random.normal(0, 0.1)), **rest}], (0, 0, 0, 0)
        elif name in _VOWELS:
            length, formants, mouth = _VOWELS[name]
            length *= (1.3 if stressed else 0.8) * (1.35 if last_word else 1) * np.exp(random.normal(0, 0.06)) / rate
            mouth = tuple(value * (1.05 if stressed else 0.75) for value in mouth)
            parts = [
                {"seconds": length / 1000 / len(formants), "formants": each, "voice": 1.0 if stressed else 0.75}
                | {"breath": 0.0, "hiss": 0.0, "centre": 1500}
                for each in formants
            ]
        else:
            given, mouth = _CONSONANTS[name]
            parts = [
                {"seconds": length / 1000 / rate, "formants": formants, "voice": voiced, "breath": breath}
                | {"hiss": hiss, "centre": centre}
                for length, formants, voiced, breath, hiss, centre in given
            ]
            if name in _CLOSED:
                parts[0]["seconds"] = max(parts[0]["seconds"], _SHORTEST_CLOSURE)
        for place, part in enumerate(parts):
            part |= {"name": name, "begins": place == 0, "stressed": stressed and name in _VOWELS}
            part |= dict(zip(MOUTH, (*mouth, 0.45 if name in _ON_TEETH else 0.0, 0.0)))
            part["closure"] = float(name in _CLOSED and place == 0)
            part["speaking"] = float(name != PAUSE)
            plan.append(part)
    return plan


def _tracks(plan, steps):
    """Name → (steps,) of everything that was planned, with the transitions between parts."""
    lengths = [max(1, round(part["seconds"] / _STEP)) for part in plan]
    lengths[-1] += max(0, steps - sum(lengths))

    def spread(values):
        return np.repeat(np.asarray(values, dtype=np.float64), lengths)[:steps]

    tracks = {}
    known = [number for number, part in enumerate(plan) if part["formants"] is not None]
    formants = np.array(
        [plan[min(known, key=lambda other: abs(other - number))]["formants"] for number in range(len(plan))]
    )
    for column in range(3):
        tracks[f"F{column + 1}"] = _smooth(spread(formants[:, column]), 0.06)
    for name, seconds in (("voice", 0.025), ("breath", 0.02), ("hiss", 0.015), ("centre", 0.0)):
        tracks[name] = _smooth(spread([part[name] for part in plan]), seconds)
    for name in ("jaw", "funnel", "pucker", "spread", "roll"):
        tracks[name] = _smooth(spread([part[name] for part in plan]), 0.13)
    closure = spread([part["closure"] for part in plan])
    tracks["closure"] = np.maximum(closure, _smooth(closure, 0.09))
    tracks["speaking"] = _smooth(spread([part["speaking"] for part in plan]), 0.2)
    tracks["lengths"] = lengths
    return tracks


def _smooth(values, seconds):
    """Weighted means over that time (a Hann window)."""
    half = round(seconds / _STEP / 2)
    if half < 1:
        return values
    kernel = np.hanning(2 * half + 3)[1:-1]
    return np.convolve(np.pad(values, half, mode="edge"), kernel / kernel.sum(), "valid")


def _named(plan):
    result, at = [], 0
    for part in plan:
        length = max(1, round(part["seconds"] / _STEP))
        if part["begins"]:
            result.append([part["name"], at * _STEP, 0.0])
        at += length
        result[-1][2] = at * _STEP
    return tuple(map(tuple, result))


# The sound


def _pitch(plan, tracks, voice, prosody, share, random):
    """(steps,) Hz: a fall over the sentence, a rise on stressed vowels, and what the emotion does to both."""
    steps = len(tracks["voice"])
    place = np.linspace(0, 1, steps)
    accents = [random.uniform(2.0, 3.5) if part["stressed"] else 0.0 for part in plan]
    accent = _smooth(np.repeat(accents, tracks["lengths"])[:steps], 0.16)
    wander = _smooth(random.standard_normal(steps), 0.4)
    wander *= 0.5 / max(wander.std(), 1e-9)
    fall = 1.5 - 3 * place
    end = (share * prosody.end + (1 - share) * Prosody.end) * _rise((place - 0.72) / 0.2)
    semitones = (fall + accent + wander) * prosody.range**share + end + share * prosody.pitch
    time = np.arange(steps) * _STEP
    tremor = 1 + share * prosody.tremor * np.sin(2 * np.pi * 5.5 * time)
    return voice.pitch * 2 ** (semitones / 12) * tremor


def _rise(values):
    values = values.clip(0, 1)
    return values * values * (3 - 2 * values)


def _sound(tracks, pitch, voice, prosody, share, samples, random):
    time = np.arange(samples) / SAMPLE_RATE
    steps = (np.arange(len(pitch)) + 0.5) * _STEP
    hertz = np.interp(time, steps, pitch)
    jitter = np.interp(time, steps, 1 + 0.006 * random.standard_normal(len(steps)))
    phase = 2 * np.pi * np.cumsum(hertz * jitter) / SAMPLE_RATE
    harmonics = max(1, int(7600 // hertz.max()))
    below = np.sin(phase / 2)
    below = np.where(np.abs(below) < 1e-6, 1e-6, below)
    pulses = (np.sin((harmonics + 0.5) * phase) / (2 * below) - 0.5) / np.sqrt(harmonics / 2)
    noise = random.standard_normal(samples)

    frequency = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)
    count = samples // _HOP + 1
    centres = np.arange(count) * _HOP / SAMPLE_RATE
    at = {name: np.interp(centres, steps, track)[:, None] for name, track in tracks.items() if name != "lengths"}
    tract = _resonances(at, voice.formants, frequency)
    brightness = voice.brightness + share * prosody.brightness
    octaves = np.log2(np.maximum(frequency, 62.5) / 500)
    tilt = 10 ** ((-6.0 * octaves.clip(-4, None) + brightness * octaves.clip(0, None)) / 20) / (
        1 + 250 / np.maximum(frequency, 30)
    )
    hiss = np.exp(-((np.log2(np.maximum(frequency, 62.5)[None] / (at["centre"] * voice.formants)) / 0.55) ** 2) / 2)
    breath = voice.breath + share * prosody.breath
    voiced = at["voice"] * tract * tilt * 0.3
    unvoiced = 0.12 * (at["breath"] + breath * at["voice"]) * tract + at["hiss"] * hiss * 1.6

    window = np.hanning(_WINDOW + 1)[:-1]
    places = np.arange(count)[:, None] * _HOP + np.arange(_WINDOW)
    spectrum = sum(
        np.fft.rfft(np.pad(source, _WINDOW // 2 + _HOP)[places + _HOP] * window, _FFT) * gain
        for source, gain in ((pulses, voiced), (noise, unvoiced))
    )
    grains = np.fft.irfft(spectrum, _FFT)
    # The answer of the tract is symmetric in time: half of it lies before a grain, around the end of the FFT.
    grains = np.roll(grains, (_FFT - _WINDOW) // 2, axis=1)
    out = np.zeros((count + _FFT // _HOP) * _HOP)
    for piece in range(_FFT // _HOP):
        part = grains[:, piece * _HOP : (piece + 1) * _HOP].ravel()
        out[piece * _HOP : piece * _HOP + len(part)] += part
    out = out[_FFT // 2 : _FFT // 2 + samples]
    level = _LOUDNESS * 10 ** (share * prosody.loudness / 20)
    loud = np.interp(time, steps, tracks["voice"]) > 0.5
    out *= level / max(float(np.sqrt(np.mean(out[loud] ** 2))) if loud.any() else 1.0, 1e-6)
    return (np.round(np.tanh(out * 1.2) / 1.2 * 32768) / 32768).astype(np.float32)


def _resonances(at, scale, frequency):
    """(count, bins): how the vocal tract passes each frequency, 1 at 0 Hz."""
    formants = [at[f"F{number}"] * scale for number in (1, 2, 3)] + [np.full_like(at["F1"], hz * scale) for hz in _HIGH]
    gain = np.ones((len(at["F1"]), len(frequency)))
    for formant, bandwidth in zip(formants, _BANDWIDTHS, strict=True):
        ratio = frequency / formant
        gain /= np.sqrt((1 - ratio**2) ** 2 + (frequency * bandwidth / formant**2) ** 2)
    return gain * (1 + (frequency / 3000) ** 2)  # what the missing higher formants would give
