"""What makes a checkpoint a student: a small file beside its weights, written by `python -m dicetalk distill`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import InputError, reason
from ..files import write_errors, written_beside

STUDENT_FILE = "student.json"
MOST_PASSES = 25
_FORMAT = "dicetalk-student-1"


@dataclass(frozen=True)
class Student:
    """How a student is sampled, and what it was made from.

    Attributes:
        steps: of the sampler; each is one pass through the network.
        reference_scale, emotion_scale: of the guidance that its weights hold, so that it needs none.
        made_from: the name of the checkpoint that it learned from.
        sampler: "lcm".
    """

    steps: int
    reference_scale: float
    emotion_scale: float
    made_from: str
    sampler: str = "lcm"

    def __post_init__(self):
        if type(self.steps) is not int or not 1 <= self.steps <= MOST_PASSES:
            raise ValueError(f"steps must be a whole number from 1 to {MOST_PASSES}, not {self.steps!r}")
        for name in ("reference_scale", "emotion_scale"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= 20:
                raise ValueError(f"{name} must be a number from 0 to 20, not {value!r}")
        if type(self.made_from) is not str:
            raise ValueError(f"made_from must be text, not {self.made_from!r}")
        if self.sampler != "lcm":
            raise ValueError(f"sampler must be lcm, not {self.sampler!r}")


def read_student(folder) -> Student | None:
    """The student that a folder of weights holds; None where they are no student's.

    Raises:
        InputError: the file is there, and is not what `distill` writes.
    """
    path = Path(folder) / STUDENT_FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.pop("format", None) != _FORMAT:
            raise ValueError(f'its "format" is not {_FORMAT}')
        return Student(**record)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} does not say how the student beside it is sampled ({reason(error)}): run `python -m dicetalk "
            "distill` again, or delete the file if the weights are not a student's."
        ) from error


def write_student(student: Student, folder) -> Path:
    """Write a student's file into the folder of its weights; InputError where that fails."""
    path = Path(folder) / STUDENT_FILE
    with written_beside(path) as part, write_errors(path):
        part.write_text(json.dumps({"format": _FORMAT, **asdict(student)}, indent=2) + "\n", encoding="utf-8")
    return path
