"""The libraries that this pack needs: whether they are installed, said in one line, and loading them when first used.

None of them is imported here.
"""

import importlib.util
import re
import sys
from importlib import metadata
from pathlib import Path

OWN = {
    "diffusers": ("diffusers", "0.35.0"),
    "scikit-image": ("skimage", "0.22"),
    "soxr": ("soxr", "0.3.7"),
}
"""What ``install.py`` adds: name for pip → name for import, and the lowest version."""

OPTIONAL = {
    "librosa": ("librosa", "0.10.2"),
    "silero-vad": (
        "silero_vad",
        "6.2.3",
    ),  # before, it wants torchaudio or onnxruntime, and all but its model is unused
}
"""What ``install.py`` adds too where it fits: they read a voice's prosody, and all else works without them."""

COMFYUIS = {
    "av": ("av", "16.0.0"),
    "einops": ("einops", "0.7"),
    "filelock": ("filelock", "0"),
    "huggingface_hub": ("huggingface_hub", "0.26"),
    "numpy": ("numpy", "1.25.0"),
    "Pillow": ("PIL", "10.1"),
    "psutil": ("psutil", "0"),
    "safetensors": ("safetensors", "0.4.3"),
    "torch": ("torch", "2.6"),  # below, a pickle could run code in spite of weights_only (CVE-2025-32434)
    "tqdm": ("tqdm", "0"),
    "transformers": ("transformers", "4.50.3"),
}
"""What ComfyUI installs itself, and this pack never touches."""

_INSTALL = Path(__file__).resolve().parents[1] / "install.py"


def unmet(needed) -> list[str]:
    """The requirements that are not met, as pip wants them: ``["soxr>=0.3.7"]``.

    Args:
        needed: `OWN` or `COMFYUIS`, or something of their form.
    """
    return [f"{name}>={lowest}" for name, (module, lowest) in needed.items() if not _is_there(name, module, lowest)]


def problem() -> str | None:
    """One line that says what is missing or too old and what to do about it; None when all is there."""
    own, comfyuis = unmet(OWN), unmet(COMFYUIS)
    if not own and not comfyuis:
        return None
    remedies = []
    if comfyuis:
        remedies.append(f'in ComfyUI\'s folder, "{sys.executable}" -m pip install -r requirements.txt')
    if own:
        remedies.append(f'"{sys.executable}" "{_INSTALL}"')
    return (
        f"DICE-Talk needs {', '.join(own + comfyuis)}, missing or older here. "
        f"Run {'; then '.join(remedies)}; and start ComfyUI again."
    )


def _is_there(name, module, lowest):
    try:
        if importlib.util.find_spec(module) is None:
            return False
    except (ImportError, ValueError):
        return False
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:  # put there by other means than pip
        return True
    return _release(installed) >= _release(lowest)


def _release(version):
    """The leading numbers of a version: "2.0.0rc1+cu128" → (2, 0, 0)."""
    return tuple(int(part) for part in re.match(r"[\d.]*", version or "").group().split(".") if part)


def lazy_names(package: str, modules: dict[str, str]):
    """Names that a package offers, whose modules and libraries load when a name is first used (PEP 562).

    The package lazy-loader does the same, but may be missing where the message of `problem` is to be shown.

    Args:
        package: `__name__` of the package.
        modules: name → the package's module that has it.

    Returns:
        `__getattr__`, `__dir__` and `__all__` for the package.
    """

    def load(name):
        if name in modules:
            return getattr(importlib.import_module(f".{modules[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load, lambda: sorted([*vars(sys.modules[package]), *modules]), list(modules)
