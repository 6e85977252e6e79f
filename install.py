"""Adds diffusers to the Python that runs ComfyUI, and changes none of the other packages that are there.

ComfyUI-Manager and comfy-cli run this after requirements.txt; by hand: `python install.py`, with ComfyUI's Python.

The newest diffusers asks for a newer huggingface_hub than older releases of transformers bear, and pip would put it in,
after which ComfyUI could not import transformers any more. So the newest diffusers is chosen that fits what is there.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

NEEDED = (0, 35)


def main():
    if installed_release("diffusers") >= NEEDED:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(sorted(kept())), encoding="utf-8")
        command = [*installer(), "-c", constraints, f"diffusers>={'.'.join(map(str, NEEDED))}"]
        code = subprocess.run(command).returncode
    if code:
        print(
            "DICE-Talk: no diffusers from 0.35 on fits the packages of this ComfyUI. Update ComfyUI and its "
            f"requirements, then run: {sys.executable} {Path(__file__).resolve()}",
            file=sys.stderr,
        )
    return code


def kept():
    """Every installed package at its version, as constraints for the installer."""
    packages = {package.name: package.version for package in metadata.distributions() if package.name}
    return {f"{name}=={version}" for name, version in packages.items() if name != "diffusers"}


def installed_release(name):
    """The first two numbers of an installed package's version, () if it is not there."""
    try:
        return tuple(int(part) for part in metadata.version(name).split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):
        return ()


def installer():
    """pip of this Python; uv where a Python has none, as in ComfyUI's desktop application."""
    if importlib.util.find_spec("pip") or not shutil.which("uv"):
        return [sys.executable, "-m", "pip", "install"]
    return [shutil.which("uv"), "pip", "install", "--python", sys.executable]


if __name__ == "__main__":
    sys.exit(main())
