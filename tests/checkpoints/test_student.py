"""The file that makes a checkpoint a student."""

import json
import shutil

import pytest

from dicetalk.checkpoints.finding import find_checkpoints, resolve_checkpoint
from dicetalk.checkpoints.student import STUDENT_FILE, Student, read_student, write_student
from dicetalk.errors import InputError

OWN = {"format": "dicetalk-student-1", "steps": 4, "reference_scale": 3.0, "emotion_scale": 6.0, "made_from": "mine"}


def test_a_student_is_what_was_written(tmp_path):
    assert read_student(tmp_path) is None
    student = Student(8, 3.0, 6.0, "mine")
    assert write_student(student, tmp_path) == tmp_path / STUDENT_FILE
    assert read_student(tmp_path) == student


@pytest.mark.parametrize(
    "change, why",
    [
        ({"format": "other"}, '"format" is not dicetalk-student-1'),
        ({"steps": 0}, "steps must be a whole number from 1 to 25, not 0"),
        ({"steps": True}, "steps must be a whole number"),
        ({"steps": "4"}, "steps must be a whole number"),
        ({"reference_scale": float("nan")}, "reference_scale must be a number"),
        ({"emotion_scale": None}, "emotion_scale must be a number"),
        ({"made_from": 3}, "made_from must be text"),
        ({"sampler": "euler"}, "sampler must be lcm"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, change, why):
    (tmp_path / STUDENT_FILE).write_text(json.dumps(OWN | change))
    with pytest.raises(InputError, match="student.json does not say how .* run `python -m dicetalk distill") as error:
        read_student(tmp_path)
    assert why in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "dicetalk-student-1"}', "[" * 100_000, "\ud800"])
def test_what_is_no_such_json_is_one_clear_error(tmp_path, text):
    (tmp_path / STUDENT_FILE).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match="delete the file if the weights are not a student's"):
        read_student(tmp_path)


def test_checkpoints_know_it_and_convert_keeps_it(tiny_checkpoint, tmp_path):
    from dicetalk.checkpoints.convert import convert_checkpoint

    folder = tmp_path / "student"
    shutil.copytree(tiny_checkpoint, folder)
    assert resolve_checkpoint(folder).student is None
    student = Student(4, 3.0, 6.0, "tiny")
    write_student(student, folder / "DICE-Talk")
    assert resolve_checkpoint(folder).student == student
    convert_checkpoint(resolve_checkpoint(folder), tmp_path / "converted", "float16")
    assert resolve_checkpoint(tmp_path / "converted").student == student
    (folder / "DICE-Talk" / STUDENT_FILE).write_text("damaged")
    checkpoint = find_checkpoints([tmp_path])["student"]  # the list of checkpoints does not fail by it
    with pytest.raises(InputError, match="does not say how"):
        checkpoint.student  # noqa: B018
