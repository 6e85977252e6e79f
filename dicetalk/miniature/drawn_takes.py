"""Drawn takes to learn from, drawn once and kept in files."""

from pathlib import Path
from typing import Any

import numpy as np

from ..drawn import Person, Take
from ..drawn.splits import people, sentences
from ..emotion.options import LEVELS, NAMES
from ..errors import InputError, reason
from ..files import write_errors, written_beside

SIZE = 64  # pixels of a side
_FILE = "takes-{:03d}.npz"
_PER_FILE = 50


def choose(total, persons, seed=0) -> list[Take]:
    """Takes of the people and sentences of the split "train".

    Every person shows every emotion about as often, a level of it drawn by chance.

    Args:
        total: how many takes.
        persons: how many people.
        seed: a whole number.
    """
    random = np.random.default_rng(seed)
    cast, texts = [Person.of(number) for number in people("train", persons)], sentences("train")
    chosen = []
    for number in range(total):
        turn, place = divmod(number, persons)
        emotion = NAMES[(turn + place) % len(NAMES)]
        level = 1 if emotion == "neutral" else int(random.choice(LEVELS))
        text = int(random.choice(texts))
        chosen.append(Take(cast[place], emotion, level, text, 4 * int(random.integers(1000))))
    return chosen


def draw(folder, chosen, on_take=None) -> None:
    """Draw the pictures and speak the sounds of takes into files of a folder; files that are there are kept.

    Args:
        folder: made if missing.
        chosen: Takes.
        on_take: called as ``on_take(done, total)``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(chosen), _PER_FILE):
        path = folder / _FILE.format(first // _PER_FILE)
        some = chosen[first : first + _PER_FILE]
        if not path.exists():
            arrays: dict[str, Any] = {}
            for number, take in enumerate(some):
                arrays[f"{number}.frames"] = np.stack(list(take.frames(SIZE)))
                arrays[f"{number}.sound"] = take.sound
                arrays[f"{number}.blendshapes"] = take.blendshapes
                arrays[f"{number}.box"] = np.array(take.face_box(SIZE))
            with written_beside(path) as part, write_errors(path), open(part, "wb") as file:
                np.savez(file, **arrays)
        if on_take is not None:
            on_take(first + len(some), len(chosen))


def load(folder, count):
    """Yields name → array of the first takes of a folder: frames, sound, blendshapes, box."""
    for first in range(0, count, _PER_FILE):
        path = Path(folder) / _FILE.format(first // _PER_FILE)
        try:
            with np.load(path) as file:
                for number in range(min(_PER_FILE, count - first)):
                    yield {name: file[f"{number}.{name}"] for name in ("frames", "sound", "blendshapes", "box")}
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} cannot be read ({reason(error)}): remove it, and draw again.") from error
