import importlib.util
import json
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest
from project import ROOT

from dicetalk import dependencies
from dicetalk.dependencies import COMFYUIS, OPTIONAL, OWN, problem, unmet

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


def test_nothing_is_done_where_all_is_there(install, commands):
    assert install.main() == 0
    assert commands == []


@pytest.mark.parametrize("missing", [["diffusers>=0.35.0"], ["scikit-image>=0.22", "soxr>=0.3.7"]])
def test_everything_else_is_held_at_its_version(install, commands, monkeypatch, missing):
    monkeypatch.setattr(install, "unmet", lambda needed: missing if needed is install.OWN else [])

    assert install.main() == 0

    ((command, constraints),) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[6:] == missing
    for name in ("torch", "numpy", "transformers", "huggingface_hub"):
        assert f"{name}=={metadata.version(name)}" in constraints
    assert not any(line.startswith(("diffusers==", "scikit-image==", "soxr==")) for line in constraints)


def test_what_an_interrupted_pip_left_is_not_taken_for_the_installed_version(install, monkeypatch, tmp_path):
    left = tmp_path / "~umpy-1.26.0.dist-info"
    left.mkdir()
    (left / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [line for line in install.kept() if line.startswith("numpy==")] == [f"numpy=={metadata.version('numpy')}"]


def test_versions_that_pip_refuses_are_not_held(install, monkeypatch, tmp_path):
    for name, version in (("oddly-packaged", "1.1build1"), ("well-packaged", "2.0rc1+cu130")):
        record = tmp_path / f"{name.replace('-', '_')}-1.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    held = install.kept()
    assert "well-packaged==2.0rc1+cu130" in held and not any("oddly" in line for line in held)


def test_failure_says_what_to_do(install, monkeypatch, capsys):
    monkeypatch.setattr(install, "unmet", lambda needed: ["diffusers>=0.35.0"] if needed is install.OWN else [])
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    assert install.main() == 1
    said = capsys.readouterr().err
    assert "diffusers>=0.35.0" in said and "Update ComfyUI" in said and len(said.splitlines()) == 1


def test_librosa_is_added_where_it_fits_and_missed_where_not(install, commands, monkeypatch, capsys):
    monkeypatch.setattr(install, "unmet", lambda needed: ["librosa>=0.10.2"] if needed is install.OPTIONAL else [])
    assert install.main() == 0
    ((command, constraints),) = commands
    assert command[-1] == "librosa>=0.10.2" and "--only-binary" in command
    assert f"numpy=={metadata.version('numpy')}" in constraints
    assert not any(line.startswith("librosa==") for line in constraints)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    assert install.main() == 0, "nothing but the voice's prosody needs it"
    said = capsys.readouterr().err
    assert "librosa" in said and len(said.splitlines()) == 1


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


def names_and_floors(lines):
    return dict(line.split("#")[0].strip().split(">=") for line in lines if line.split("#")[0].strip())


def test_one_list_of_what_is_needed():
    """pyproject.toml, requirements.txt and the check at the start say the same."""
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.S | re.M).group(1)
    needed = re.findall(r'"(.+?)(?:>=(.+?))?"', listed)
    checked = {name: "" if lowest == "0" else lowest for name, (_, lowest) in {**OWN, **COMFYUIS}.items()}
    assert dict(needed) == checked
    required = names_and_floors((ROOT / "requirements.txt").read_text().splitlines())
    assert required == {name: OWN[name][1] for name in required}
    assert OWN.keys() - required == {"diffusers", "scikit-image"}
    extra = re.search(r"^voice = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.M).group(1)
    assert extra == ", ".join(f'"{name}>={lowest}"' for name, (_, lowest) in OPTIONAL.items())


def test_nothing_is_said_where_all_is_there():
    assert problem() is None


@pytest.mark.parametrize("name", [*OWN, *COMFYUIS])
def test_a_missing_library_is_told_in_one_line(monkeypatch, name):
    module = {**OWN, **COMFYUIS}[name][0]
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == module else find(wanted))
    said = problem()
    assert f"DICE-Talk needs {name}>=" in said and len(said.splitlines()) == 1 and sys.executable in said
    assert ("install.py" in said) == (name in OWN)
    assert ("requirements.txt" in said) == (name in COMFYUIS)


def test_a_library_that_is_too_old_is_told(monkeypatch):
    find = metadata.version
    for found, told in (("4.50.2", True), ("4.9", True), ("4.50.3", False), ("5.0.0rc1", False)):
        installed = {"transformers": found}
        monkeypatch.setattr(metadata, "version", lambda name, there=installed: there.get(name) or find(name))
        assert unmet(COMFYUIS) == (["transformers>=4.50.3"] if told else [])


def test_a_library_without_pips_records_is_taken_as_it_is(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", version)
    assert unmet({"soxr": ("soxr", "99")}) == []
    assert dependencies.unmet({"nothing": ("no_such_module", "1")}) == ["nothing>=1"]


# An installation of some age, of which the newest diffusers would replace huggingface_hub.
OLDER = {
    "torch": ("2.6.0", []),
    "torchvision": ("0.21.0", ["torch==2.6.0"]),
    "numpy": ("1.26.4", []),
    "tokenizers": ("0.22.1", ["huggingface-hub<2.0,>=0.16.4"]),
    "transformers": ("4.57.1", ["huggingface-hub<1.0,>=0.34.0", "tokenizers<=0.23.0,>=0.22.0"]),
    "huggingface_hub": ("0.36.0", []),
    "safetensors": ("0.6.2", []),
    "av": ("16.0.0", []),
    "librosa": ("0.11.0", []),
    "silero-vad": ("6.2.3", []),
}


@pytest.fixture(scope="module")
def older_installation(tmp_path_factory):
    """Python of an environment with `OLDER`, of which pip knows the versions; there is no code in them."""
    folder = tmp_path_factory.mktemp("older")
    venv.create(folder, with_pip=True)
    (place,) = {*folder.glob("lib/python*/site-packages"), *folder.glob("Lib/site-packages")}
    for name, (version, needs) in OLDER.items():
        (place / name).mkdir()
        (place / name / "__init__.py").touch()
        records = place / f"{name}-{version}.dist-info"
        records.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        (records / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs)]) + "\n")
        (records / "INSTALLER").write_text("pip\n")
        (records / "RECORD").write_text(f"{name}/__init__.py,,\n{records.name}/METADATA,,\n{records.name}/RECORD,,\n")
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def would_install(python, *requirements):
    """Name → version of all that pip would put into an environment, replacing what is there."""
    ask = [python, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", *requirements]
    done = subprocess.run(ask, capture_output=True, text=True)
    if "No matching distribution" in done.stderr or "ConnectionError" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    items = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {item["name"].lower().replace("-", "_"): item["version"] for item in items}


def test_requirements_replace_nothing(older_installation):
    added = would_install(older_installation, "-r", str(ROOT / "requirements.txt"))
    assert "soxr" in added and not added.keys() & OLDER.keys()


def test_install_holds_what_the_newest_releases_would_replace(older_installation, tmp_path):
    if not would_install(older_installation, *OWN).keys() & OLDER.keys():
        pytest.skip("the newest releases replace nothing there")
    ask = [older_installation, "-c", r"import install; print('\n'.join(install.kept()))"]
    (tmp_path / "kept.txt").write_text(subprocess.run(ask, capture_output=True, text=True, cwd=ROOT, check=True).stdout)
    floors = [f"{name}>={lowest}" for name, (_, lowest) in OWN.items()]
    added = would_install(older_installation, "-c", str(tmp_path / "kept.txt"), *floors)
    assert {"diffusers", "scikit_image", "soxr"} <= added.keys() and not added.keys() & OLDER.keys()
