"""Adds what DICE-Talk needs to the Python that runs ComfyUI, and changes none of the other packages that are there.

ComfyUI-Manager and comfy-cli run this after requirements.txt; by hand: `python install.py`, with ComfyUI's Python.

The newest diffusers needs a newer huggingface_hub than older releases of transformers allow; pip would install it,
after which ComfyUI could not import transformers any more; what scikit-image needs asks for a newer NumPy, too. So
the newest releases are chosen that fit what is there.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from dicetalk.dependencies import OPTIONAL, OWN, unmet

_VERSION = r"(\d+!)?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[\w.]+)?"  # as PEP 440 has them
_NEVER_COMPILED = ("--only-binary", "numba", "--only-binary", "llvmlite")  # librosa's; that would take a compiler


def main():
    missing = unmet(OWN)
    code = add(missing)
    if code:
        print(
            f"DICE-Talk: {', '.join(missing)} could not be installed beside the packages of this ComfyUI. Update "
            f"ComfyUI and its requirements, then run: {sys.executable} {Path(__file__).resolve()}",
            file=sys.stderr,
        )
    optional = unmet(OPTIONAL)
    if add(optional, _NEVER_COMPILED):
        print(
            f"DICE-Talk: {', '.join(optional)} does not fit beside the packages of this ComfyUI. Only reading an "
            "emotion from a clip's voice without a voice model needs it.",
            file=sys.stderr,
        )
    return code


def add(missing, options=()):
    """Install requirements, holding every other package; the installer's exit code."""
    if not missing:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(sorted(kept())), encoding="utf-8")
        return subprocess.run([*installer(), "-c", constraints, *options, *missing]).returncode


def kept():
    """Every installed package at its version, but for the pack's own, as constraints for the installer."""
    lines = []
    for name in {package.name for package in metadata.distributions()} - {None}:
        try:  # by name, since what an interrupted pip leaves behind ("~umpy") is listed too
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if version and re.fullmatch(_VERSION, version):  # a system's packages may have others, which pip refuses
            lines.append(f"{name}=={version}")
    return [line for line in lines if normal(line.partition("==")[0]) not in {**OWN, **OPTIONAL}]


def normal(name):
    """A package's name in the spelling that pip compares."""
    return name.lower().replace("_", "-").replace(".", "-")


def installer():
    """pip of this Python; uv where a Python has none, as in ComfyUI's desktop application."""
    if importlib.util.find_spec("pip") or not shutil.which("uv"):
        return [sys.executable, "-m", "pip", "install"]
    return [shutil.which("uv"), "pip", "install", "--python", sys.executable]


if __name__ == "__main__":
    sys.exit(main())
