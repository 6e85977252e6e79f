"""A track of speech for each person of a dialogue, from channels, from marked turns, or from a recording each."""

import re
from dataclasses import dataclass

import numpy as np

from ..emotion.options import LONGEST
from ..errors import InputError

NOBODY = "-"
_TURN = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*s\s+(\S+)")
_FADE = 0.01  # seconds, so that a turn begins and ends without a click
_ALIKE = 0.98  # correlation; two microphones in one room hear the other person far less


@dataclass(frozen=True)
class Turn:
    """From `seconds` on, `person` speaks (from 0, in the order of the faces), or nobody where that is None."""

    seconds: float
    person: int | None


def parse_turns(text: str, persons: int) -> list[Turn]:
    """Who speaks when, such as "0s 1; 2.5s 2; 4s -; 5s 1": times that increase, and numbers of persons, - for nobody.

    Args:
        text: turns with semicolons between them.
        persons: how many there are.

    Raises:
        InputError: something else; the message quotes it.
    """
    turns: list[Turn] = []
    for part in filter(None, map(str.strip, text.split(";"))):
        found = _TURN.fullmatch(part)
        if not found:
            raise InputError(f'The turns say "{part}": write a time and a person, such as 0s 1; 2.5s 2; 4s {NOBODY}.')
        seconds, who = float(found[1]), found[2]
        if who != NOBODY and not (who.isdecimal() and 1 <= int(who) <= persons):
            raise InputError(f'The turns say "{part}": there are the persons 1 to {persons}, and {NOBODY} for nobody.')
        if seconds > LONGEST or turns and seconds <= turns[-1].seconds:
            raise InputError(f'The turns say "{part}" at that place: times increase, up to {LONGEST:g} s.')
        turns.append(Turn(seconds, None if who == NOBODY else int(who) - 1))
    if not turns:
        raise InputError(f"The turns are empty: write who speaks when, such as 0s 1; 2.5s 2; 4s {NOBODY}.")
    return turns


def by_turns(speech, rate: int, turns: list[Turn], persons: int) -> list[np.ndarray]:
    """One recording as a track for each person, silent where another one speaks.

    Args:
        speech: (samples,) of all persons.
        rate: in Hz.
        turns: as `parse_turns` gives them. Before the first one nobody speaks.

    Returns:
        (samples,) float32 for each person; where two turns meet, one fades as the other comes, in 10 ms.
    """
    time = np.arange(len(speech), dtype=np.float64) / rate
    ends = [turn.seconds for turn in turns[1:]] + [np.inf]
    shares = [np.zeros(len(speech)) for _ in range(persons)]
    for turn, end in zip(turns, ends):
        if turn.person is None:
            continue
        begins = np.ones_like(time) if turn.seconds == 0 else ((time - turn.seconds) / _FADE + 0.5).clip(0, 1)
        stops = ((end - time) / _FADE + 0.5).clip(0, 1)
        shares[turn.person] += np.minimum(begins, stops)
    speech = np.asarray(speech, dtype=np.float32)
    return [speech * share.clip(0, 1).astype(np.float32) for share in shares]


def by_channels(waveform, persons: int, name: str) -> list[np.ndarray]:
    """The channels of a recording as tracks, in the order of the faces.

    Args:
        waveform: (channels, samples).
        name: how an error calls the recording.

    Raises:
        InputError: there are not as many channels as persons, or two channels are the same sound.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if len(waveform) != persons:
        raise InputError(
            f"{name} has {len(waveform)} channel{'s' * (len(waveform) != 1)}, and there are {persons} persons: give a "
            "recording for each, one with a channel for each, or one with turns such as 0s 1; 2.5s 2."
        )
    for first in range(persons):
        for second in range(first):
            if _alike(waveform[first], waveform[second]):
                raise InputError(
                    f"Channels {second + 1} and {first + 1} of {name} hold the same sound, so that both would speak: "
                    "say who speaks when with turns, such as 0s 1; 2.5s 2."
                )
    return list(waveform)


def _alike(a, b):
    size = np.sqrt(np.dot(a, a) * np.dot(b, b))
    return size > 0 and np.dot(a, b) / size > _ALIKE


def equally_long(tracks) -> list[np.ndarray]:
    """The tracks with silence at their ends, all as long as the longest."""
    longest = max(map(len, tracks))
    return [np.pad(np.asarray(track, dtype=np.float32), (0, longest - len(track))) for track in tracks]


def mixed(tracks) -> np.ndarray:
    """All tracks at once, (samples,), made quieter where they would be too loud together."""
    total = np.sum(equally_long(tracks), axis=0)
    return total / max(1.0, float(np.abs(total).max(initial=0.0)))
