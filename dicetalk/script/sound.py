"""Words placed in speech without a model: by the pauses that are heard, and by the sounds of a word's letters.

Vowels are loud, closures of stops quiet, pauses quieter, and what hisses is high: the cheapest places of all the words'
sounds, and of pauses between words, best at punctuation, are found by dynamic programming, as segment models do
(Ostendorf et al., "From HMM's to segment models", IEEE Trans. Speech and Audio Processing 4, 1996). How long sounds and
the last word before a pause usually are follows Klatt ("Linguistic uses of segmental duration in English", JASA 59,
1976); the other numbers are this project's choice. Letters of other scripts than the Latin one count by length alone.
"""

import re

import numpy as np

from ..errors import InputError
from ..model.audio import SAMPLE_RATE
from .words import Word

STEP = 0.01  # seconds
PAUSE = 0.25  # seconds of silence that are certainly no stop consonant's closure
_SHORTEST = 0.06  # seconds; a shorter noise is a click
_BELOW = 32.0  # dB below the loud parts: what is still speech
_ABOVE = 8.0  # dB above the noise, at least

# What letters sound like, longest first: a kind of sound, and how long it usually takes in seconds.
_SOUNDS = (
    (r"[aeiouyäöüáéíóúàèìòùâêîôûãõåæøœ]+", "vowel", 0.115),
    (r"tch|ch|sch|sh|zh|ph|th|ss|ff|[szfvßçx]|c(?=[eiy])", "hiss", 0.09),
    (r"ck|pp|bb|tt|dd|gg|cc|[pbtdkgqc]", "stop", 0.08),
    (r"mm|nn|ng|ll|rr|wh|[mnlrwhjñ]", "other", 0.065),
    (r"\d", "any", 0.3),
    (r"\w", "any", 0.2),
)
_SOUND = re.compile("|".join(f"({letters})" for letters, _, _ in _SOUNDS))
_SHORT_WORD, _SHORT = 3, 0.8  # letters of words that are rarely stressed; and how long their vowels are, relatively
# Kind of sound → (mean, deviation) of its level in dB below the stretch's loud parts, and of the share of its power
# above 3 kHz in dB.
_HEARD = {
    "vowel": ((-4.0, 5.0), (-20.0, 7.0)),
    "other": ((-10.0, 6.0), (-20.0, 8.0)),
    "hiss": ((-14.0, 7.0), (-4.0, 7.0)),
    "stop": ((-20.0, 10.0), (-12.0, 10.0)),
    "pause": ((-36.0, 5.0), (-10.0, 12.0)),
}
_HIGH = 3000  # Hz
_TRUST = 0.25  # of a frame of 10 ms, as neighbours say much the same
_LONGEST_SOUND = 40  # frames of 10 ms, at least
_LOUDEST_PAUSE = -15.0  # dB
_LAST = 1.3  # a word before a pause, as a multiple of its usual length
_SILENT_E = re.compile(r"[^aeiouy]e$")
_ENDS = (".", "!", "?", "…", "。", "！", "？", ";", "；")
_COMMAS = (",", ":", "—", "–", "、", "，", "：", ")", '"', "”")

_SPREAD = 0.35  # of the logarithm of a sound's length
_NO_BREAK, _NO_PAUSE_AT_END, _NO_PAUSE_AT_COMMA = 8.0, 3.0, 1.0  # costs, in nats
_REACH = 1500  # frames around where a word would be if all took as long as usual
_NEAR = 50  # frames around where a word is known to be


def spoken_stretches(speech):
    """Where somebody speaks.

    Args:
        speech: (samples,) float array, mono, 16 kHz.

    Returns:
        [(start, end), ...] in seconds, with pauses of 0.25 s or more between them; empty for silence.
    """
    step = round(STEP * SAMPLE_RATE)
    speech = np.asarray(speech, dtype=np.float32)
    count = len(speech) // step
    if count == 0:
        return []
    power = np.square(speech[: count * step].reshape(count, step), dtype=np.float64).mean(1)
    power = np.convolve(power, np.full(3, 1 / 3), "same")
    level = 10 * np.log10(power + 1e-10)
    loud, noise = np.percentile(level, 95), np.percentile(level, 5)
    if loud < -60:
        return []
    active = level > max(loud - _BELOW, min(noise + _ABOVE, loud - _ABOVE))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]])))
    stretches = []
    for start, end in edges.reshape(-1, 2) * STEP:
        if stretches and start - stretches[-1][1] < PAUSE - 1e-9:
            stretches[-1][1] = end
        else:
            stretches.append([start, end])
    return [(float(start), float(end)) for start, end in stretches if end - start >= _SHORTEST - 1e-9]


def sounds(text):
    """What a word's letters sound like: [(kind, usual seconds), ...]; kinds are vowel, hiss, stop, other and any."""
    letters = "".join(filter(str.isalnum, text.casefold()))
    letters = _SILENT_E.sub("", letters) or letters
    found = [_SOUNDS[match.lastindex - 1][1:] for match in _SOUND.finditer(letters)]
    if len(letters) <= _SHORT_WORD:
        found = [(kind, seconds * (_SHORT if kind == "vowel" else 1)) for kind, seconds in found]
    return found or [("any", 0.1)]


def place_words(written, speech, around=None):
    """Place words in speech by pauses, sounds and usual lengths.

    Args:
        written: Written words in their order.
        speech: (samples,) float array, mono, 16 kHz.
        around: Words with times near which these are searched for; None searches widely.

    Returns:
        [Word, ...], in order.

    Raises:
        InputError: the speech is silent, or too short for so many words.
    """
    stretches = spoken_stretches(speech)
    if not stretches:
        raise InputError("The speech is silent, so the script's words cannot be placed in it: use another recording.")
    said = [sounds(word.text) for word in written]
    breaks = [_break_costs(word.text) for word in written]
    times = _placed(said, breaks, np.asarray(speech, dtype=np.float32), stretches, around)
    return [Word(word.text, start, end, word.spaced) for word, (start, end) in zip(written, times)]


def _break_costs(text):
    """What a pause after a word costs, and no pause, in nats."""
    if text.endswith(_ENDS):
        return 0.0, _NO_PAUSE_AT_END
    return (0.0, _NO_PAUSE_AT_COMMA) if text.endswith(_COMMAS) else (_NO_BREAK, 0.0)


def _placed(said, breaks, speech, stretches, around):
    """[(start, end), ...] in seconds of the words.

    Args:
        said: what `sounds` gives for each word.
        breaks: what `_break_costs` gives for each.
        stretches: what `spoken_stretches` gives.
        around: as for `place_words`.
    """
    frames = int(np.ceil(stretches[-1][1] / STEP)) + 1
    costs = _frame_costs(speech, frames)
    usual = np.array([sum(seconds for _, seconds in word) for word in said])
    usual = usual * [_LAST if pause < no_pause else 1.0 for pause, no_pause in breaks]
    lengths = np.array([end - start for start, end in stretches])
    pace = lengths.sum() / usual.sum()
    # Where each word would end if all were as long as usual: the search is around that.
    heard = np.concatenate([[0.0], np.cumsum(lengths)])
    edges = [(start, spoken) for (start, _), spoken in zip(stretches, heard)]
    edges += [(end, spoken) for (_, end), spoken in zip(stretches, heard[1:])]
    times, spoken = np.array(sorted(edges)).T
    expected = np.interp(np.cumsum(usual) * pace, spoken, times) / STEP
    lows, highs = expected - _REACH, expected + _REACH
    if around is not None:
        lows = np.array([word.start for word in around]) / STEP - _NEAR
        highs = np.array([word.end for word in around]) / STEP + _NEAR
    lows, highs = (np.clip(ends, 0, frames).astype(int) for ends in (lows, highs))
    highs[-1] = frames

    best = np.full(frames + 1, np.inf)
    best[0] = 0.0
    steps = []
    best = _paused(best, costs["pause"], 0.0, 0.0, 0, highs[0], steps)
    following = [*highs[1:], frames]
    for word, (pause, no_pause), low, high, latest in zip(said, breaks, lows, highs, following):
        slower = _LAST if pause < no_pause else 1.0
        for kind, seconds in word:
            best = _sounded(best, costs[kind], seconds * pace * slower / STEP, low, high, steps)
        best = _paused(best, costs["pause"], pause, no_pause, low, latest, steps)
    if not np.isfinite(best[frames]):
        raise InputError(
            f"The script's {len(said)} words are too many for {lengths.sum():.1f} s of speech: give the text of this "
            "speech alone."
        )
    places = [frames]
    for first, step in reversed(steps):
        places.append(int(step[places[-1] - first]))
    places = places[::-1]
    found, at = [], 1
    for word in said:
        found.append((places[at] * STEP, places[at + len(word)] * STEP))
        at += len(word) + 1
    return found


def _sounded(best, cost, usual, low, high, steps):
    """The least cost of each frame when one more sound ends there, from frame `low` to `high`.

    Adds to `steps`: `low`, and where a sound that ends there or later would start. Only that is kept, as all frames for
    each sound would take memory by the square of the speech's length.
    """
    heard = np.concatenate([[0.0], np.cumsum(cost)])
    lengths = np.arange(1, max(int(3 * usual), _LONGEST_SOUND) + 1)
    taken = np.log(lengths / usual) ** 2 / (2 * _SPREAD**2)
    ends = np.arange(low, high + 1)
    starts = ends[:, None] - lengths[None]
    reached = np.where(starts >= 0, (best - heard)[starts.clip(0)], np.inf) + taken[None]
    steps.append((low, (ends - lengths[reached.argmin(1)]).astype(np.int32)))
    after = np.full(len(best), np.inf)
    after[ends] = reached.min(1) + heard[ends]
    return after


def _paused(best, cost, pause, no_pause, low, high, steps):
    """The same for a pause of any length, or none; `high`: where the next word would end at the latest."""
    heard = np.concatenate([[0.0], np.cumsum(cost)])
    left = best - heard
    least = np.minimum.accumulate(left)
    places = np.arange(len(best), dtype=np.int32)
    started = np.maximum.accumulate(np.where(left <= least, places, 0))
    waited = np.concatenate([[np.inf], least[:-1] + heard[1:] + pause])
    waits = waited < best + no_pause
    step = np.where(waits, np.concatenate([[0], started[:-1]]), places)
    steps.append((low, step[low : high + 1].astype(np.int32)))
    return np.where(waits, waited, best + no_pause)


def _frame_costs(speech, frames):
    """Kind of sound → (frames,): how little each 10 ms sound like it, in nats."""
    step = round(STEP * SAMPLE_RATE)
    size = 2 * step
    piece = np.pad(speech[: frames * step], (step // 2, size))
    piece = np.pad(piece, (0, max(0, (frames + 1) * step - len(piece))))
    windows = np.lib.stride_tricks.sliding_window_view(piece, size)[::step][:frames]
    power = np.abs(np.fft.rfft(windows * np.hanning(size), axis=1)) ** 2
    high = power[:, int(_HIGH / SAMPLE_RATE * size) :].sum(1)
    whole = power.sum(1) + 1e-9
    level = 10 * np.log10(whole)
    level = (level - np.percentile(level, 90)).clip(-40, 6)
    share = 10 * np.log10(high / whole + 1e-4)
    costs = {"any": np.zeros(frames)}
    for kind, ((mean, deviation), (middle, width)) in _HEARD.items():
        if kind == "pause":
            mean = np.clip(np.percentile(level, 5) + 4, mean, _LOUDEST_PAUSE)
        cost = ((level - mean) / deviation) ** 2 / 2 + np.log(deviation)
        costs[kind] = _TRUST * (cost + ((share - middle) / width) ** 2 / 2 + np.log(width))
    return costs
