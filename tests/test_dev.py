"""dev.py: the newest packages are asked for by name alone, in a folder of their own."""

import importlib.util

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
