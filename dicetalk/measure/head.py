"""Where the head of a drawn person is: ridge regression on true drawings of that person, fitted when it is needed."""

import numpy as np

from ..drawn import Person, Take
from ..drawn.splits import sentences
from ..emotion.options import NAMES
from .reader import as_pictures

_SENTENCES, _EVERY, _SEED = 4, 3, 1  # of the drawings it is fitted to: the others' sentences are held out
_TESTED = 5  # of the drawings one in so many is for the test
_RIDGE = 1e-3


class HeadReader:
    """Reads how far the head of one drawn person is moved.

    Args:
        person: Person.

    Attributes:
        right: correlation of what is read with the truth, sideways and up, on drawings that it was not fitted to.
    """

    def __init__(self, person: Person):
        rows: list[np.ndarray] = []
        places: list[tuple[float, float]] = []
        for sentence in sentences("train")[:_SENTENCES]:
            for emotion in NAMES:
                take = Take(person, emotion, None, sentence, _SEED)
                every = range(0, len(take), _EVERY)
                rows.append(_rows([take.frame(number, 64) for number in every]))
                places.extend((take.poses[number].x, take.poses[number].y) for number in every)
        pictures, moved = np.concatenate(rows), np.array(places)
        tested = np.arange(len(pictures)) % _TESTED == 0
        self._mean, self._middle = pictures[~tested].mean(0), moved[~tested].mean(0)
        centred = pictures[~tested] - self._mean
        kernel = centred @ centred.T
        kernel[np.diag_indices_from(kernel)] += _RIDGE * np.trace(kernel) / len(kernel)
        self._weights = centred.T @ np.linalg.solve(kernel, moved[~tested] - self._middle)
        read = self._read(pictures[tested])
        self.right = tuple(float(np.corrcoef(read[:, axis], moved[tested, axis])[0, 1]) for axis in range(2))

    def read(self, frames) -> np.ndarray:
        """(n, 2) of the head, sideways and up, as `drawn.pose.Pose`; frames as `DrawnReader.read` takes them."""
        return self._read(_rows(frames))

    def _read(self, rows):
        return (rows - self._mean) @ self._weights + self._middle


def _rows(frames):
    return as_pictures(frames).flatten(1).numpy().astype(np.float64)
