"""The readers of emotion files: seeds, what fuzzing has found so far, and a little fuzzing each time."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import targets

HERE = Path(__file__).resolve().parent
RUNS = {"prior": 5_000, "saved": 3_000, "description": 10_000}  # some seconds each


@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds_are_read_and_findings_stay_mended(name):
    for seed in targets.seeds(name):
        targets.TARGETS[name](seed)
    for case in sorted((HERE / "cases" / name).glob("*")):
        targets.TARGETS[name](case.read_bytes())


@pytest.mark.parametrize("name", targets.TARGETS)
def test_fuzzing_finds_nothing(name, tmp_path):
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("THE READERS WERE NOT FUZZED, as atheris is not installed (`pip install -e .[fuzz]`)")
    command = [
        sys.executable,
        HERE / "fuzz.py",
        name,
        f"-runs={RUNS[name]}",
        "-seed=1",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    found = [path.read_bytes() for path in tmp_path.iterdir()]
    assert done.returncode == 0 and not found, f"{found}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert f"Done {RUNS[name]} runs" in done.stderr
