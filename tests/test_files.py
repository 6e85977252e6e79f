"""Files are whole under their names, whoever else writes them and however that ended."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dicetalk.errors import InputError
from dicetalk.files import existing_folder, require_space, written_beside


@pytest.fixture
def path(tmp_path):
    return tmp_path / "it [1].txt"


def test_of_two_that_write_at_once_the_last_to_end_counts(path):
    with written_beside(path) as first:
        first.write_text("first")
        with written_beside(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == [path.name]


def test_what_fails_leaves_what_was_there(path):
    path.write_text("old")
    with pytest.raises(ValueError), written_beside(path) as part:
        part.write_text("ha")
        raise ValueError
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == [path.name]


def test_leftovers_go_but_not_what_another_process_writes(path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    runs = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    for process in (ended.pid, runs.pid, os.getpid(), 10**30):
        path.with_name(f".{path.name}.{process}-0123abcd.part").write_text("half")
    kept = {f".{path.name}.{runs.pid}-0123abcd.part", f".{path.name}.0123456789ab.part", ".other.txt.1-0123abcd.part"}
    for name in kept:
        path.with_name(name).write_text("half")
    try:
        with written_beside(path) as part:
            part.write_text("all")
    finally:
        runs.kill()
        runs.wait()
    assert set(os.listdir(path.parent)) == {path.name} | kept


def test_a_folder_that_goes_while_it_is_written_to(path):
    with pytest.raises(InputError, match=r"it \[1\]\.txt cannot be written: its folder is gone\.$"):
        with written_beside(path) as part:
            part.write_text("all")
            shutil.rmtree(path.parent)
    assert not path.parent.exists()


@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_at_the_last_moment(path, monkeypatch, problem):
    def fsync(file):
        raise OSError(problem, os.strerror(problem))

    path.write_text("old")
    monkeypatch.setattr("dicetalk.files.os.fsync", fsync)
    told = "input/output error" if problem == errno.EIO else "the disk is full"
    with pytest.raises(InputError, match=rf"cannot be written: {told}\.$"):
        with written_beside(path) as part:
            part.write_text("new")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_that_cannot_be_made(path):
    path.write_text("no folder")
    with pytest.raises(InputError, match="cannot be written"), written_beside(path / "it.txt"):
        pytest.fail("there is nothing to write to")


def test_where_not_even_the_drive_is_there_nothing_can_be_written(path, monkeypatch):
    assert existing_folder(path / "a" / "b") == path.parent
    monkeypatch.setattr(Path, "exists", lambda self: False)
    for ask in (existing_folder, lambda folder: require_space(folder, 1)):
        with pytest.raises(InputError, match=f"^{re.escape(str(path))} cannot be written: there is no "):
            ask(path)
