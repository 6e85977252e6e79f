"""A file of measurements in which a slower build is seen."""

import json

import pytest

from dicetalk.errors import InputError
from dicetalk.measure.history import remember


def report(seconds, device="a"):
    return {"device": device, "networks": {"stock": {"seconds": 1.0}, "dicetalk": {"seconds": seconds}}}


def test_a_slower_run_is_seen(tmp_path):
    file = tmp_path / "bench.jsonl"
    assert "first run" in remember(file, "step", {"size": "512"}, report(1.0))[0]
    assert "no time differs" in remember(file, "step", {"size": "512"}, report(1.05))[0]
    (line,) = remember(file, "step", {"size": "512"}, report(2.1))
    assert line.startswith("slower: networks dicetalk took 2.1 s, 1.05 s with") and "2.00" in line
    (line,) = remember(file, "step", {"size": "512"}, report(1.0))
    assert line.startswith("faster: networks dicetalk")
    assert len(file.read_text().splitlines()) == 4
    kept = json.loads(file.read_text().splitlines()[0])
    assert kept["report"] == report(1.0) and kept["kind"] == "step" and kept["build"]


@pytest.mark.parametrize(
    "kind, options, device",
    [("clip", {"size": "512"}, "a"), ("step", {"size": "256"}, "a"), ("step", {"size": "512"}, "b")],
)
def test_other_runs_are_not_compared(tmp_path, kind, options, device):
    file = tmp_path / "bench.jsonl"
    remember(file, "step", {"size": "512"}, report(1.0))
    assert "first run" in remember(file, kind, options, report(9.0, device))[0]


@pytest.mark.parametrize("text", ["no JSON\n", "[1]\n", '{"kind": "step"}\n'])
def test_another_file_is_left_alone(tmp_path, text):
    file = tmp_path / "notes.txt"
    file.write_text(text)
    with pytest.raises(InputError, match="notes.txt is no file of measurements"):
        remember(file, "step", {}, report(1.0))
    assert file.read_text() == text


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        remember(tmp_path / "no" / "bench.jsonl", "step", {}, report(1.0))
