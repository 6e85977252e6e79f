import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What ComfyUI 0.33.0 installs itself and this pack must leave alone.
COMFYUIS_OWN = {"torch", "torchvision", "torchaudio", "numpy", "transformers", "tokenizers", "safetensors", "av"}


@pytest.fixture
def install():
    spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def commands(monkeypatch):
    """The commands that would be run, each with its constraints, instead of running them."""
    seen = []

    def run(command):
        constraints = Path(command[command.index("-c") + 1]).read_text().splitlines()
        seen.append(([str(part) for part in command], constraints))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return seen


def test_nothing_is_done_where_diffusers_is_there(install, commands):
    assert install.main() == 0
    assert commands == []


@pytest.mark.parametrize("there", ["0.34.2", None])
def test_everything_else_is_held_at_its_version(install, commands, monkeypatch, there):
    monkeypatch.setattr(install, "installed_release", lambda name: (0, 34) if there else ())

    assert install.main() == 0

    ((command, constraints),) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-1] == "diffusers>=0.35"
    for name in ("torch", "numpy", "transformers", "huggingface_hub"):
        assert f"{name}=={metadata.version(name)}" in constraints
    assert not any(line.startswith("diffusers==") for line in constraints)


def test_failure_says_what_to_do(install, monkeypatch, capsys):
    monkeypatch.setattr(install, "installed_release", lambda name: ())
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    assert install.main() == 1
    assert "Update ComfyUI" in capsys.readouterr().err


def test_uv_takes_the_place_of_a_missing_pip(install, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(install.shutil, "which", lambda name: f"/bin/{name}")
    assert install.installer() == ["/bin/uv", "pip", "install", "--python", sys.executable]


def test_requirements_leave_comfyui_alone():
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    names = {line.split(">=")[0].lower() for line in lines if line}
    assert names
    assert not names & COMFYUIS_OWN
    assert all("==" not in line and "<" not in line for line in lines), "floors only"
