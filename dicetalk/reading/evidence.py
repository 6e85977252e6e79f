"""The evidence embedder: a posterior over the eight emotions from face and voice, and the emotion that belongs to it.

It needs no trained weights. Each expert gives a distribution over the eight emotions for every half second. Experts on
the same cue, who see the same thing, are averaged in the logarithm; the cues, taken to be independent given the
emotion, are multiplied: a product of experts, each raised to its reliability (a logarithmic opinion pool; Genest and
Zidek, "Combining probability distributions", Statistical Science 1, 1986; Hinton, "Training products of experts by
minimizing contrastive divergence", Neural Computation 14, 2002). All emotions are equally likely beforehand.

A timeline multiplies half second by half second. One emotion for the clip multiplies what each cue says of the clip,
its mean over the time when it is there: where a face is missing, nothing is known of it, which must not count against
what it showed. A still, pictures of half a second or less, holds for the whole clip.
"""

import importlib.util
from functools import partial

import numpy as np

from ..emotion.mixing import mix
from ..emotion.options import LONGEST, NAMES
from ..emotion.text import Mixed, Named, format_text
from ..emotion.timeline import EmotionTimeline, TimelineKey
from ..errors import InputError
from .clip import BLENDSHAPES, NoCue, Reading, check_seconds

STEP = 0.5  # seconds

# How far each expert is trusted: the exponent of what it says, 0 to 1. By judgement, from what is known of people, who
# show the basic emotions better from faces than from voices (Scherer, "Vocal communication of emotion: A review of
# research paradigms", Speech Communication 40, 2003). Prosody carries arousal more than valence: `voice` lets it say no
# more than that, and half of it counts.
RELIABILITY = {"face actions": 0.8, "face model": 0.8, "voice model": 0.7, "prosody": 0.5}
CUES = {"face": ("face actions", "face model"), "voice": ("voice model", "prosody")}

_DOUBT = 0.03  # of what an expert says is spread evenly: none is so sure that it overrules all others

_SMOOTHING = 1.0  # seconds, the deviation of the Gaussian that smooths a timeline
_TOLERANCE = 0.03  # of a weight; a timeline's keys that the others show as well are left out
_DIGITS = 3  # of an emotion's weights

_MOST_KEYS = 2000
_MOSTLY_SPEECH = 0.3

_FOR_PROSODY = {"librosa": "librosa", "silero_vad": "silero-vad"}  # names for import and for pip


class Evidence:
    """Reads what a face shows and how a voice sounds; `clip` says how it is called.

    Args:
        face_model: folder of a Hugging Face image-classification model, for faces that are looked for in the frames.
        voice_model: folder of a Hugging Face audio-classification model, which takes the place of prosody.
        device: where these models compute.
    """

    name = "evidence"

    def __init__(self, face_model=None, voice_model=None, device="cpu"):
        self.face_model, self.voice_model, self.device = face_model, voice_model, device

    def read(self, clip, priors, timeline=False, on_progress=None):
        """Read a clip; the arguments, the Reading and the errors are those of `clip`."""
        missing = [name for name in NAMES if name not in priors]
        if missing:
            raise InputError(
                f"A clip is placed among the eight emotions, and the checkpoint lacks {', '.join(missing)}: click "
                "Download in Load DICE-Talk, or run `python -m dicetalk download --only emotions`."
            )
        said, notes = self._ask(clip, on_progress)
        if not said:
            raise NoCue(" ".join([f"Nothing in {clip.name} shows an emotion.", *notes]))
        steps = max(len(shares) for shares, _ in said.values())
        tracks, exponents, weights = {}, [], {}
        for cue, names in CUES.items():
            own = [name for name in names if name in said]
            if not own:
                continue
            shares, presences = zip(*(_longer(*said[name], steps, cue) for name in own))
            tracks[cue], exponent = one_cue(shares, [RELIABILITY[name] for name in own])
            exponents.append(exponent)
            weights[cue] = _mean(tracks[cue], exponent * np.max(presences, axis=0))
        whole = [mean[None] for mean in weights.values()]
        weights["combined"] = product_of_experts(whole, [exponent.max() for exponent in exponents])[0]
        combined = tracks["combined"] = product_of_experts(list(tracks.values()), exponents)
        times = STEP * (np.arange(steps) + 0.5)
        if timeline:
            emotion = follow(times, combined, priors, clip.name)
        else:
            emotion = matching(weights["combined"], priors, f"read from {clip.name}")
        return Reading(emotion, times, tracks, weights, {cue: sureness(each) for cue, each in tracks.items()}, notes)

    def _ask(self, clip, on_progress):
        """Expert → its shares and how much of its cue was there, for those that say something; and notes."""
        from .classifiers import Classifier

        asked, notes = {}, []
        if clip.blendshapes is not None:
            asked["face actions"] = _face_actions
        if clip.frames is not None and self.face_model:
            asked["face model"] = partial(_face_model, Classifier(self.face_model, "image", self.device))
        elif clip.frames is not None and clip.blendshapes is None:
            notes.append("The face was not read: that takes face landmarks, or a face model.")
        if clip.audio is not None and self.voice_model:
            asked["voice model"] = partial(_voice_model, Classifier(self.voice_model, "audio", self.device))
        elif clip.audio is not None and (missing := _missing_for_prosody()):
            verb = "is" if len(missing) == 1 else "are"
            notes.append(
                f"The voice was not read, as {' and '.join(missing)} {verb} not installed: run install.py of this pack "
                f"with ComfyUI's Python, or `pip install {' '.join(missing)}`; or choose a voice model."
            )
        elif clip.audio is not None:
            asked["prosody"] = _prosody
        said = {}
        for number, (name, expert) in enumerate(asked.items()):
            shares, presence, remarks = expert(clip, _teller(on_progress, number, len(asked), clip.seconds))
            notes += remarks
            if known(shares).any():
                said[name] = (1 - _DOUBT) * shares + _DOUBT / len(NAMES), np.broadcast_to(presence, len(shares))
        return said, (*clip.notes(), *notes)


def _missing_for_prosody():
    return [name for module, name in _FOR_PROSODY.items() if importlib.util.find_spec(module) is None]


def _teller(on_progress, number, passes, seconds):
    """What an expert calls with the seconds that it has read."""

    def tell(done):
        if on_progress is not None and seconds:
            on_progress(number * seconds + min(done, seconds), passes * seconds)
        elif on_progress is not None:
            on_progress(done, None)

    return tell


# What the experts say: (steps, 8) shares, rows of NaN for nothing; how much of a cue was there, 0 to 1, as a number or
# (steps,); and notes


def _face_actions(clip, tell):
    from .face_actions import features, probabilities, without_rest

    steps = Steps(len(features(np.zeros((1, len(BLENDSHAPES))))[0]))
    for times, rows in clip.blendshapes():
        steps.add(np.floor_divide(times, STEP).astype(int), features(rows))
        if len(times):
            tell(float(times[-1]))
    values = steps.means()
    seen = known(values)
    if not seen.any():
        return values[:, : len(NAMES)], 0.0, ["No face was seen."]
    return probabilities(without_rest(values, STEP * seen.sum())), 1.0, _gaps(seen, "No face was seen")


def _face_model(classifier, clip, tell):
    from .classifiers import face_picture
    from .faces import FaceChoice

    steps, choice = Steps(len(NAMES)), FaceChoice()
    for seconds, frame in clip.frames(STEP):
        picture = face_picture(frame, seconds, choice)
        shares = np.full((1, len(NAMES)), np.nan) if picture is None else classifier.faces([picture])
        steps.add(np.array([int(seconds // STEP)]), shares)
        tell(seconds)
    shares = steps.means()
    if not known(shares).any():
        return shares, 0.0, ["No face was found in the pictures."]
    return shares, 1.0, [*_gaps(known(shares), "No face was found in the pictures"), *choice.notes()]


def _voice_model(classifier, clip, tell):
    from .voice import is_silent, windows

    steps = Steps(len(NAMES))
    for start, end, samples in windows(clip.audio()):
        if is_silent(samples):
            shares = np.full(len(NAMES), np.nan)
        else:
            shares = classifier.voice(samples)
        steps.add_span(start, end, shares)
        tell(end)
    shares = steps.means()
    return shares, 1.0, _silence(shares)


def _prosody(clip, tell):
    from .voice import Prosody, windows

    prosody, spans = Prosody(), []
    for start, end, samples in windows(clip.audio()):
        prosody.hear(samples)
        spans.append((start, end))
        tell(end)
    steps = Steps(len(NAMES) + 1)
    for (start, end), row, speech in zip(spans, *prosody.shares(), strict=True):
        steps.add_span(start, end, np.append(row, speech))
    means = steps.means()
    shares, speech = means[:, :-1], means[:, -1]
    notes = _silence(shares)
    if not notes and np.nanmean(speech) < _MOSTLY_SPEECH:
        notes = ["The sound does not go like speech, so little or nothing was taken from it."]
    elif not notes:
        notes = ["Of the voice, only how aroused it sounds was read, which says little on its own."]
    return shares, speech, notes


def _silence(shares):
    return [] if known(shares).any() else ["The sound is silent."]


def _gaps(seen, what):
    return [] if seen.all() else [f"{what} in {STEP * (~seen).sum():g} of {STEP * len(seen):g} s."]


class Steps:
    """Means over steps of half a second, of rows that come in the order of their times.

    It keeps one row a step: 3 MB for an hour of 52 columns.
    """

    def __init__(self, width):
        self._sums, self._counts = np.zeros((64, width)), np.zeros(64, int)
        self._sampled = np.zeros(64, bool)
        self._length = 0

    def add(self, indices, rows):
        """Rows, (n, width), for the steps of these numbers, (n,). A row of NaN says that nothing was there.

        Raises:
            InputError: steps before the clip's start, or later than any clip may last.
        """
        if not len(indices):
            return
        check_seconds(indices * STEP)
        self._length = max(self._length, int(indices.max()) + 1)
        while len(self._counts) < self._length:
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
            self._sampled = np.concatenate([self._sampled, np.zeros_like(self._sampled)])
        there = known(rows)
        np.add.at(self._sums, indices[there], rows[there])
        np.add.at(self._counts, indices[there], 1)
        self._sampled[indices] = True

    def add_span(self, start, end, row):
        """One row for all steps from a time to another, in seconds."""
        indices = np.arange(round(start / STEP), max(round(end / STEP), round(start / STEP) + 1))
        self.add(indices, np.broadcast_to(row, (len(indices), len(row))))

    def means(self):
        """(steps, width): NaN where nothing was there; steps without any row hold the one before, as a slow slide
        show does."""
        counts = self._counts[: self._length, None]
        means = np.where(counts > 0, self._sums[: self._length] / np.maximum(counts, 1), np.nan)
        latest = np.maximum.accumulate(np.where(self._sampled[: self._length], np.arange(self._length), 0))
        return means[latest]


# What they say together


def known(shares):
    """(steps,): which rows hold numbers."""
    return ~np.isnan(shares[:, 0])


def product_of_experts(tracks, exponents):
    """Multiply distributions, each raised to its exponent, step by step.

    Args:
        tracks: (steps, 8) each, rows sum to 1 and are above 0, or are NaN where an expert says nothing.
        exponents: a number or (steps,) for each.

    Returns:
        (steps, 8), rows sum to 1; NaN where no expert says anything.
    """
    total = np.zeros_like(tracks[0])
    said = np.zeros(len(total), bool)
    for track, exponent in zip(tracks, exponents, strict=True):
        there = known(track)
        logs = np.log(np.maximum(track[there], 1e-12))
        total[there] += np.broadcast_to(exponent, len(track))[there, None] * logs
        said |= there
    shares = np.exp(total - total.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    shares[~said] = np.nan
    return shares


def one_cue(tracks, reliabilities):
    """Experts on one cue see the same thing, so they are averaged: (steps, 8), and the cue's reliability, (steps,).

    The reliability is that of the best expert who says something, 0 where none does.
    """
    there = np.stack([known(track) for track in tracks]) * np.array(reliabilities)[:, None]
    exponents = there / np.maximum(there.sum(0), 1e-12)
    return product_of_experts(tracks, list(exponents)), there.max(0)


def sureness(track):
    """How sure, moment by moment and on average: 1 - entropy / log 8, where nothing is said 0."""
    shares = track[known(track)]
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(1)
    return float((1 - entropy / np.log(len(NAMES))).sum() / len(track))


def _mean(track, weights):
    there = known(track)
    return np.average(track[there], axis=0, weights=weights[there])


def _longer(shares, presence, steps, cue):
    """Shares, (n, 8), and presence, (n,), filled up to that many steps: with NaN and 0, a still face with itself.

    Presence that is NaN becomes 0.
    """
    missing = steps - len(shares)
    held = cue == "face" and len(shares) == 1
    more = np.repeat(shares, missing, axis=0) if held else np.full((missing, shares.shape[1]), np.nan)
    present = np.repeat(presence, missing) if held else np.zeros(missing)
    return np.concatenate([shares, more]), np.nan_to_num(np.concatenate([presence, present]))


# The emotion that belongs to them


def matching(weights, priors, provenance):
    """The Emotion with the mean and the variance of the priors' mixture under these weights, (8,).

    It is named by its text form, with weights of three digits.
    """
    weights = np.round(np.asarray(weights, dtype=np.float64), _DIGITS)
    parts = [(float(weight), name) for weight, name in zip(weights, NAMES, strict=True) if weight > 0]
    mixed = mix([priors[name] for _, name in parts], [weight for weight, _ in parts], "moments")
    named = [(weight, Named(name)) for weight, name in sorted(parts, key=lambda part: -part[0])]
    text = named[0][1] if len(named) == 1 else Mixed(tuple(named), "moments")
    return mixed.renamed(format_text(text), provenance)


def follow(times, track, priors, name):
    """The EmotionTimeline that follows (steps, 8) weights over time, smoothed; gaps are bridged linearly.

    It has a key where the weights turn. Weights that never change give one key, so that the timeline is the emotion.
    """
    there = known(track)
    filled = np.stack([np.interp(times, times[there], column[there]) for column in track.T], axis=1)
    reach = int(3 * _SMOOTHING / STEP)
    kernel = np.exp(-((np.arange(-reach, reach + 1) * STEP / _SMOOTHING) ** 2) / 2)
    padded = np.pad(filled, ((reach, reach), (0, 0)), mode="edge")
    smooth = np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T], axis=1)
    rows = few_turns(times, smooth, _TOLERANCE)
    times = times.clip(max=LONGEST)  # the middle of the last step may be beyond
    keys = [TimelineKey(float(times[row]), matching(smooth[row], priors, f"read from {name}")) for row in rows]
    if len({key.emotion for key in keys}) == 1:
        keys = keys[:1]
    return EmotionTimeline(tuple(keys), name=name, provenance=f"follows {name}")


def few_turns(times, track, tolerance):
    """As `turns`, with as much more tolerance as leaves no more than 2,000 rows."""
    while len(rows := turns(times, track, tolerance)) > _MOST_KEYS:
        tolerance *= 1.3
    return rows


def turns(times, track, tolerance):
    """Numbers of the rows, (n, columns) at (n,) seconds, that give all others by lines between them, no number off by
    more than `tolerance`.

    Douglas and Peucker, "Algorithms for the reduction of the number of points", Cartographica 10, 1973.
    """
    kept, open_ = {0, len(track) - 1}, [(0, len(track) - 1)]
    while open_:
        first, last = open_.pop()
        if last - first < 2:
            continue
        shares = ((times[first : last + 1] - times[first]) / (times[last] - times[first]))[:, None]
        line = track[first] + shares * (track[last] - track[first])
        off = np.abs(track[first : last + 1] - line).max(1)
        middle = first + int(off.argmax())
        if off.max() > tolerance:
            kept.add(middle)
            open_ += [(first, middle), (middle, last)]
    return sorted(kept)
