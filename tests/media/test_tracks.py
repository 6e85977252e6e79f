"""A track of speech for each person of a dialogue."""

import numpy as np
import pytest

from dicetalk.errors import InputError
from dicetalk.media.tracks import Turn, by_channels, by_turns, equally_long, mixed, parse_turns

RATE = 1000


def test_turns_are_read():
    turns = parse_turns(" 0s 1; 2.5 s 2;4s -;", 2)
    assert turns == [Turn(0, 0), Turn(2.5, 1), Turn(4, None)]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "The turns are empty"),
        (" ; ", "The turns are empty"),
        ("0s", 'say "0s": write a time and a person'),
        ("1: 0-2", 'say "1: 0-2": write a time'),
        ("0s 3", 'say "0s 3": there are the persons 1 to 2'),
        ("0s 0", "persons 1 to 2"),
        ("0s 1; 0s 2", 'say "0s 2" at that place: times increase'),
        ("2s 1; 1s 2", "times increase"),
        ("999999s 1", "times increase, up to"),
    ],
)
def test_what_is_no_turn_is_said(text, words):
    with pytest.raises(InputError, match=words):
        parse_turns(text, 2)


def test_each_person_has_their_own_turns_and_nobody_the_rest():
    speech = np.ones(4 * RATE, np.float32)
    first, second = by_turns(speech, RATE, parse_turns("0.5s 1; 1s 2; 2s 1; 3s -", 2), 2)
    middle = (np.arange(16) * 250 + 125).tolist()
    assert first[middle].tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    assert second[middle].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    within = slice(600, 2900)
    assert np.allclose((first + second)[within], 1)  # where one stops the other begins
    assert np.abs(np.diff(first)).max() < 0.11 and first.dtype == np.float32  # no clicks


def test_a_turn_from_the_beginning_is_whole():
    (speech,) = by_turns(np.ones(100), RATE, [Turn(0, 0)], 1)
    assert speech.tolist() == [1] * 100


def test_channels_are_tracks_unless_they_are_the_same():
    random = np.random.default_rng(0)
    two = random.standard_normal((2, 500)).astype(np.float32)
    assert all(np.array_equal(a, b) for a, b in zip(by_channels(two, 2, "talk"), two))
    assert len(by_channels(np.stack([two[0], np.zeros(500)]), 2, "talk")) == 2
    with pytest.raises(InputError, match="talk has 1 channel, and there are 2 persons"):
        by_channels(two[:1], 2, "talk")
    with pytest.raises(InputError, match="Channels 1 and 2 of talk hold the same sound"):
        by_channels(np.stack([two[0], 0.5 * two[0]]), 2, "talk")


def test_tracks_are_made_equally_long_and_mixed_without_clipping():
    short, long = equally_long([np.full(2, 0.9), np.full(4, 0.9)])
    assert len(short) == len(long) == 4 and short[2:].tolist() == [0, 0]
    assert mixed([np.full(2, 0.9), np.full(4, 0.9)]).tolist() == pytest.approx([1, 1, 0.5, 0.5])
    assert mixed([np.full(2, 0.25), np.full(2, 0.25)]).tolist() == [0.5, 0.5]
