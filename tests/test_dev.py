"""dev.py: the newest packages are asked for by name alone, in a folder of their own."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
from project import ROOT


def load():
    spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
    dev = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dev)
    return dev


def test_newest_takes_no_pin_of_comfyuis(tmp_path):
    lines = [
        "comfyui-frontend-package==1.49.6",
        "torch",
        "",
        "# a comment",
        "numpy>=1.25.0",
        "av>=14.2; x > '3'",
        "a~=1.0",
    ]
    (tmp_path / "requirements.txt").write_text("\n".join(lines))
    torch, _, _, comfyui = load().newest_groups(tmp_path)
    assert torch == ["--upgrade", "torch", "torchvision", "torchaudio"]
    assert [name for name in comfyui if not name.startswith("--")][1:] == [
        *("comfyui-frontend-package", "torch", "numpy", "av", "a"),
    ]


def test_newest_has_a_venv_of_its_own(tmp_path):
    dev = load()
    usual = dev.PYTHON
    dev.use_venv(tmp_path)
    assert dev.VENV == tmp_path and dev.PYTHON.parent.parent == tmp_path and dev.PYTHON.name == usual.name


@pytest.mark.parametrize(
    ("found", "has_gpu", "expected"),
    [
        (None, False, ["miniature", "demo/drawn_portrait.png", "64"]),
        (None, True, ["miniature", "demo/drawn_portrait.png", "64"]),
        ("weights", False, ["weights", "demo/portrait.jpg", "192"]),
        ("weights", True, ["weights", "demo/portrait.jpg", None]),
    ],
)
def test_the_demo_takes_weights_or_else_the_miniature(monkeypatch, found, has_gpu, expected):
    dev, commands = load(), []
    monkeypatch.setattr(dev, "set_up", lambda *_: None)
    monkeypatch.setattr(dev, "find_checkpoint", lambda: (found and Path(found), has_gpu))
    monkeypatch.setattr(dev, "run", lambda *command: commands.append([str(word) for word in command]))
    assert dev.demo(["--seed", "7"]) == 0
    (command,) = commands
    after = dict(zip(command, command[1:]))
    assert [Path(after["--checkpoint"]).name, after["--portrait"], after.get("--size")] == expected
    assert command[-2:] == ["--seed", "7"]
    assert all((ROOT / name).is_file() for name in (after["--portrait"], after["--audio"]))


def test_tests_run_in_two_processes_unless_another_number_is_asked_for(tmp_path, monkeypatch):
    dev, ran = load(), []
    monkeypatch.setattr(dev, "CACHE", tmp_path)
    for name in ("set_up_tests", "set_up_where_it_fits", "set_up_chromium"):
        monkeypatch.setattr(dev, name, lambda *_: None)
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(dev.subprocess, "run", lambda command, env, **_: ran.append((command, env)) or done)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for arguments in ([], ["-n", "0", "tests/media"]):
        assert dev.test(arguments) == 0
    (whole, environment), (part, _) = ran
    assert whole[whole.index("-n") + 1] == "2" and whole[-1] == "tests"
    assert part[-3:] == ["-n", "0", "tests/media"], "the last of an option counts"
    assert environment["OMP_NUM_THREADS"] == "1"
