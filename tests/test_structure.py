"""The rooms of the library: which imports which, and that no circle ties them."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from project import ROOT

LIBRARY = ROOT / "dicetalk"


def contracts(folder):
    """The exit code and the report of import-linter for the library in a folder, by the contracts of pyproject."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as check; check()"]
    done = subprocess.run(
        [*command, "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_imports_run_one_way():
    code, report = contracts(ROOT)
    assert code == 0, report
    assert "2 kept, 0 broken" in report


@pytest.mark.parametrize(
    "file, line, names",
    [
        ("emotion/value.py", "from ..model import bank", "dicetalk.emotion.value -> dicetalk.model.bank"),
        ("media/image.py", "from ..sampling import windows", "dicetalk.media.image -> dicetalk.sampling.windows"),
        ("sampling/windows.py", "from . import loop", "dicetalk.sampling"),
        (
            "measure/bench.py",
            "def late():\n    from ..commands import bench",
            "dicetalk.measure.bench -> dicetalk.commands",
        ),
    ],
)
def test_a_circle_is_noticed(tmp_path, file, line, names):
    shutil.copytree(LIBRARY, tmp_path / "dicetalk", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "dicetalk" / file, "a") as module:
        module.write(f"\n{line}\n")
    code, report = contracts(tmp_path)
    assert code == 1 and "1 kept, 1 broken" in report and names in report, report


def test_the_top_has_at_most_ten_files():
    assert len(list(LIBRARY.glob("*.py"))) <= 10


def test_the_guide_draws_every_room_in_the_order_of_imports():
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\ndicetalk/ ")[2].partition("\nweb/ ")[0]
    drawn = re.findall(r"^  ([\w.]+)/? +\S", tree, re.M)
    there = {path.name for path in LIBRARY.iterdir() if not path.name.startswith("__")}
    assert sorted(drawn) == sorted(there)
    layers = re.search(r"^layers = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S)[1]
    place = {room: number for number, line in enumerate(layers.splitlines()) for room in re.findall(r"\w+", line)}
    numbers = [place[name.removesuffix(".py")] for name in drawn]
    assert numbers == sorted(numbers)
