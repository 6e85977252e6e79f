"""What is trained with, and what is held out: people, sentences, takes, and cells of person × emotion.

Nothing is drawn by chance here, so that every program that asks has the same sets.
"""

from itertools import count, islice, product

from ..emotion.options import CLASSES, NAMES
from ..errors import InputError
from .person import Person
from .sentences import SENTENCES
from .take import Take

SPLITS = ("train", "held-out")
_EVERY = 4  # of the people, sentences and seeds one in so many is held out


def split_of(number):
    """ "train" or "held-out", for the number of a person, a sentence or a take's seed."""
    return SPLITS[number % _EVERY == _EVERY - 1]


def people(split, total):
    """The numbers of the first so many people of a split: `Person.of` draws them."""
    return _first(split, total)


def sentences(split):
    """The numbers of a split's sentences in SENTENCES."""
    _check(split)
    return tuple(number for number in range(len(SENTENCES)) if split_of(number) == split)


def seeds(split, total):
    """The first so many seeds of a split's takes."""
    return _first(split, total)


def held_out_cells(numbers, each=1):
    """Cells of person × emotion to leave out of training, as evenly over the emotions as can be.

    Args:
        numbers: of people, who keep their other emotions.
        each: how many emotions each of them lacks, 0 to 7. Neutral is never among them: portraits show it.

    Returns:
        frozenset of (person's number, emotion).
    """
    emotions = [name for name in NAMES if name != "neutral"]
    if not 0 <= each <= len(emotions):
        raise InputError(f"Emotions held out of each person are {each}: give 0 to {len(emotions)}.")
    return frozenset(
        (number, emotions[(place * each + more) % len(emotions)])
        for place, number in enumerate(numbers)
        for more in range(each)
    )


def takes(split, total_people, seeds_each=1, classes=CLASSES, without=frozenset(), only=None):
    """Yields the Takes of a split: its people × classes × its sentences × its seeds.

    Args:
        split: "train" or "held-out".
        total_people, seeds_each: how many people, and seeds of each sentence.
        classes: (emotion, level) to have.
        without: cells to leave out, see `held_out_cells`.
        only: cells to have alone.
    """
    numbers, texts = people(split, total_people), sentences(split)
    for number in numbers:
        person = Person.of(number)
        for emotion, level in classes:
            if (number, emotion) in without or (only is not None and (number, emotion) not in only):
                continue
            for text, seed in product(texts, seeds(split, seeds_each)):
                yield Take(person, emotion, level, text, seed)


def _first(split, total):
    _check(split)
    return tuple(islice((number for number in count() if split_of(number) == split), total))


def _check(split):
    if split not in SPLITS:
        raise InputError(f"The split is {split!r}: give train or held-out.")
