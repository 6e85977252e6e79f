"""Subtitles of spoken words: cues of one or two lines, and the SubRip file (SRT) of them.

Lines of 42 characters and cues of up to 7 seconds follow the usual guidelines of broadcasters and streaming services.
"""

import re
import textwrap
from dataclasses import dataclass

from ..errors import InputError
from ..files import write_errors, written_beside

LINE = 42  # characters
LINES = 2
LONGEST = 7.0  # seconds
SHORTEST = 1.0  # seconds that a cue is shown, where the next one leaves it the time
_PAUSE = 0.8  # seconds between two words that end a cue
_ENDS = (".", "!", "?", "…", "。", "！", "？")
_QUOTES = "\"'”’»)]"
_TIME = r"(\d+):([0-5]\d):([0-5]\d)[,.](\d{3})"
_CUE = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}.*")


@dataclass(frozen=True)
class Cue:
    """A subtitle: seconds from when and until when it is shown, and its text of one or more lines."""

    start: float
    end: float
    text: str


def cues_of(words):
    """The cues of [Word, ...], in order: they end with sentences, at pauses, and before they are too long."""
    groups, group = [], []
    for word in words:
        if group and _is_full(group, word):
            groups.append(group)
            group = []
        group.append(word)
    groups.append(group)
    cues = []
    for group, following in zip(groups, [*groups[1:], None]):
        start, end = group[0].start, group[-1].end
        latest = following[0].start if following else end + SHORTEST
        end = max(end, min(start + SHORTEST, latest))
        cues.append(Cue(start, end, "\n".join(_lines(_text(group)))))
    return cues


def to_srt(cues):
    """The text of a SubRip file."""
    blocks = (
        f"{number}\n{_clock(cue.start)} --> {_clock(cue.end)}\n{cue.text}\n" for number, cue in enumerate(cues, 1)
    )
    return "\n".join(blocks)


def parse_srt(text):
    """[Cue, ...] of a SubRip file's text, in the order of their times; formatting is left in the text.

    Raises:
        InputError: no cues, or a cue that ends before it starts; names its line.
    """
    lines = text.lstrip("\ufeff").splitlines() if isinstance(text, str) else []
    starts = [place for place, line in enumerate(lines) if _CUE.fullmatch(line)]
    if not starts:
        raise InputError("The subtitles hold no cue such as 00:00:01,000 --> 00:00:02,500: use text in SRT format.")
    cues = []
    for place, following in zip(starts, [*starts[1:], len(lines) + 1]):
        numbers = [int(number) for number in _CUE.fullmatch(lines[place]).groups()]
        start, end = (h * 3600 + m * 60 + s + ms / 1000 for h, m, s, ms in (numbers[:4], numbers[4:]))
        if end <= start:
            raise InputError(f"The subtitles, line {place + 1}: the cue ends before it starts.")
        body = [line.strip() for line in lines[place + 1 : following - 1]]
        while body and not body[-1]:
            body.pop()
        if body:
            cues.append(Cue(start, end, "\n".join(body)))
    return sorted(cues, key=lambda cue: cue.start)


def write_srt(path, cues):
    """Write a SubRip file, UTF-8; an existing one is replaced. InputError where it cannot be written."""
    with written_beside(path) as part, write_errors(path):
        part.write_text(to_srt(cues), encoding="utf-8", newline="\n")


def _is_full(group, word):
    text = _text([*group, word])
    ended = group[-1].text.rstrip(_QUOTES).endswith(_ENDS)
    return (
        ended or word.start - group[-1].end > _PAUSE or word.end - group[0].start > LONGEST or len(_lines(text)) > LINES
    )


def _text(words):
    return "".join(" " * (word.spaced and place > 0) + word.text for place, word in enumerate(words))


def _lines(text):
    """One line, or two of about the same length."""
    if len(text) <= LINE:
        return [text]
    widths = range(max(len(text) // 2, 1), LINE + 1)
    even = (textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) for width in widths)
    lines = next((lines for lines in even if len(lines) <= LINES), None)
    return lines or textwrap.wrap(text, LINE, break_on_hyphens=False)


def _clock(seconds):
    thousandths = max(0, round(seconds * 1000))
    minutes, thousandths = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{thousandths // 1000:02},{thousandths % 1000:03}"
