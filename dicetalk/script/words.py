"""Words with the times at which they are spoken."""

from dataclasses import dataclass

from ..errors import InputError


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


def require_order(words):
    """InputError unless the words' times are in order and each ends after its start."""
    last = 0.0
    for word in words:
        if not last <= word.start <= word.end:
            raise InputError(
                f'The word "{word.text}" is at {word.start:g} to {word.end:g} s, and the one before it ends at '
                f"{last:g} s: words need times in order."
            )
        last = word.end
