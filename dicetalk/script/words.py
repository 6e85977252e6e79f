"""Words with the times at which they are spoken."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A spoken word: as it is written, when it starts and ends in seconds, and whether a space is before it."""

    text: str
    start: float
    end: float
    spaced: bool = True


def as_rows(words):
    """[[text, start, end, spaced], ...] with times in milliseconds' steps, for JSON."""
    return [[word.text, round(word.start, 3), round(word.end, 3), word.spaced] for word in words]
