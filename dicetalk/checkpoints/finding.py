"""Checkpoints: where they are and what they hold.

A checkpoint is a folder in the published layout. What it lacks of the folders below, it shares with others beside it.

    DICE-Talk/{unet,pose_guider,audio_linear,emo_model}.pth or .safetensors; they may also be in the folder itself
    whisper-tiny/                        the Whisper encoder, as openai/whisper-tiny
    stable-video-diffusion-img2vid-xt/   VAE, CLIP vision tower and scheduler of SVD-XT, diffusers layout; without it,
                                         svd_xt.safetensors as ComfyUI has it, beside it or in models/checkpoints
    emotions/                            the emotion priors (also ``examples/emo/`` beside the folder)
    DICE-Talk/student.json               present if the weights are a student's, see ``student.py``
    UNTRAINED                            present if the weights are random, see ``tiny.py``
    MINIATURE                            present if they are the miniature's, which knows drawn people only
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from .student import Student, read_student
from .svd_files import SVD_FILES, find_svd_file

PARTS = ("unet", "pose_guider", "audio_linear", "emo_model")
PART_TITLES = {
    "unet": "DICE-Talk's UNet",
    "pose_guider": "DICE-Talk's pose guider",
    "audio_linear": "DICE-Talk's audio projection",
    "emo_model": "DICE-Talk's emotion model",
}
WEIGHTS_FOLDER = "DICE-Talk"
WHISPER_FOLDER = "whisper-tiny"
SVD_FOLDER = "stable-video-diffusion-img2vid-xt"
EMOTIONS_FOLDER = "emotions"
UNTRAINED_FILE = "UNTRAINED"
MINIATURE_FILE = "MINIATURE"
MINIATURE_SIZE = 64  # pixels of a side of the pictures that it learned

_SUFFIXES = (".safetensors", ".pth")
_FOLDERS = {
    "whisper": (WHISPER_FOLDER, f"sonic/{WHISPER_FOLDER}"),
    "svd": (SVD_FOLDER,),
    "emotions": (EMOTIONS_FOLDER, "examples/emo"),
}
_FOLDER_TITLES = {
    "whisper": f"the Whisper encoder (folder {WHISPER_FOLDER})",
    "svd": f"Stable Video Diffusion (folder {SVD_FOLDER})",
    "emotions": f"the emotion priors (folder {EMOTIONS_FOLDER})",
}
_OLD_PORT_FOLDER = "dice_talk"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder as found; parts and folders that it lacks are absent or None.

    Attributes:
        name: unique among the checkpoints found together.
        root: the checkpoint folder.
        files: part → file, for the parts of `PARTS` that are there; safetensors before .pth.
        whisper, svd, emotions: folders, see the module's description; svd may be one file.
    """

    name: str
    root: Path
    files: Mapping[str, Path]
    whisper: Path | None = None
    svd: Path | None = None
    emotions: Path | None = None

    @property
    def untrained(self) -> bool:
        """Whether its weights are random, so that pictures made with it are noise."""
        return os.path.isfile(self.root / UNTRAINED_FILE)

    @property
    def miniature(self) -> bool:
        """Whether it knows drawn people only, see `dicetalk.miniature`."""
        return os.path.isfile(self.root / MINIATURE_FILE)

    @property
    def student(self) -> Student | None:
        """How it is sampled, if it is a student of `distill`; InputError if the file beside its UNet is damaged."""
        unet = self.files.get("unet")
        return None if unet is None else read_student(unet.parent)

    def file(self, part: str) -> Path:
        """The file of a part of `PARTS`; InputError if the checkpoint lacks it."""
        if part not in self.files:
            raise InputError(
                f"The checkpoint {self.root} lacks {part}.pth, {PART_TITLES[part]}. "
                f"Fetch it with `python -m dicetalk download --only dice-talk --output {self.root}`."
            )
        return self.files[part]

    def folder(self, kind: str) -> Path:
        """The folder "whisper", "svd" (or its one file) or "emotions"; InputError if the checkpoint lacks it."""
        folder = getattr(self, kind)
        if folder is None and kind == "svd":
            raise InputError(
                f"The checkpoint {self.root} lacks {_FOLDER_TITLES[kind]}, and {' or '.join(SVD_FILES[:2])} is neither "
                f"beside it nor in ComfyUI's models/checkpoints. Only its VAE and CLIP vision tower, 1.5 GB, are used: "
                f"fetch them with `python -m dicetalk download --only svd --output {self.root}`. Its owners ask for a "
                "Hugging Face account and your consent to their licence first."
            )
        if folder is None:
            raise InputError(
                f"The checkpoint {self.root} lacks {_FOLDER_TITLES[kind]}. "
                f"Fetch it with `python -m dicetalk download --only {kind} --output {self.root}`."
            )
        return folder


def default_roots() -> list[Path]:
    """The places where the command line looks for checkpoints, in this order; they need not exist.

    ComfyUI's models/dicetalk (of $COMFYUI_PATH, of the ComfyUI whose custom_nodes/ holds this package, of
    ~/comfy/ComfyUI), then ./checkpoints, at last the miniature of the project's source.
    """
    models = comfyui_models_folders()
    places = [*(folder / "dicetalk" for folder in models), Path("checkpoints").absolute(), miniature_folder()]
    return list(dict.fromkeys(places))


def miniature_folder() -> Path:
    """Where the miniature is in the project's source; packages and the registry's zip come without it."""
    return _absolute(__file__).parents[2] / "miniature"


def comfyui_models_folders() -> list[Path]:
    """The models/ folders of the ComfyUI installations known without ComfyUI; they need not exist."""
    installations = []
    if os.environ.get("COMFYUI_PATH"):
        installations.append(Path(os.environ["COMFYUI_PATH"]).expanduser().absolute())
    pack = Path(__file__).absolute().parents[2]
    if pack.parent.name == "custom_nodes":
        installations.append(pack.parents[1])
    installations.append(Path("~/comfy/ComfyUI").expanduser())
    return [installation / "models" for installation in installations]


def find_checkpoints(roots) -> dict[str, Checkpoint]:
    """All checkpoints in some folders, in their order, by name.

    A root may be a checkpoint itself, and so may each of its subfolders and the folder ``dice_talk`` beside a root (as
    older ports have it). Folders that are missing or cannot be read are passed over.

    Args:
        roots: folders, as `default_roots` or ComfyUI's folder_paths give them.
    """
    found = {}
    seen = set()
    for root in map(_absolute, roots):
        shared = (root, root.parent)
        for folder in (root, *_subfolders(root), root.parent / _OLD_PORT_FOLDER):
            checkpoint = _checkpoint(folder, shared)
            if checkpoint is None or os.path.realpath(checkpoint.root) in seen:
                continue
            seen.add(os.path.realpath(checkpoint.root))
            name = checkpoint.name if checkpoint.name not in found else f"{checkpoint.name} ({checkpoint.root})"
            found[name] = replace(checkpoint, name=name)
    return found


def resolve_checkpoint(path=None, roots=None) -> Checkpoint:
    """The checkpoint to use.

    Args:
        path: a checkpoint folder, a folder that holds one (as ``checkpoints/`` or as its only one), a file in one, or
            the name of one in `roots`. None: the first in `roots`, a trained one before a miniature, and that before an
            untrained one; never the miniature of the project's source.
        roots: folders to look in; those of `default_roots` when None.

    Raises:
        InputError: there is none; says where it looked and how to get one.
    """
    roots = default_roots() if roots is None else [_absolute(root) for root in roots]
    found = find_checkpoints(roots)
    if path is None:
        own = miniature_folder()
        choices = [checkpoint for checkpoint in found.values() if checkpoint.root != own]
        if choices:
            return min(choices, key=lambda checkpoint: (checkpoint.untrained, checkpoint.miniature))
        raise InputError(
            f"No DICE-Talk checkpoint in {', '.join(str(root) for root in roots if root != own)}. Fetch the published "
            f"one with `python -m dicetalk download`{_or_miniature()}."
        )
    if str(path) in found:
        return found[str(path)]
    folder = _absolute(path)
    if os.path.isfile(folder):
        folder = folder.parent
    for candidate in (folder, folder / "checkpoints"):
        checkpoint = _checkpoint(candidate, (candidate.parent, candidate.parent.parent))
        if checkpoint:
            return checkpoint
    inside = find_checkpoints([folder]) if os.path.isdir(folder) else {}
    if len(inside) == 1:
        return next(iter(inside.values()))
    if inside:
        raise InputError(f"{folder} holds several checkpoints: {', '.join(inside)}. Name one of them.")
    problem = "holds no unet.pth or unet.safetensors" if os.path.isdir(folder) else "does not exist"
    raise InputError(
        f"Checkpoint {folder} {problem}. Fetch the published one with `python -m dicetalk download --output "
        f"{folder}`{_or_miniature()}."
    )


def _or_miniature() -> str:
    if not (miniature_folder() / MINIATURE_FILE).is_file():
        return ""
    return f", or give {miniature_folder()}, the miniature, which knows drawn people only"


def _absolute(path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _subfolders(root: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(root))
    except (OSError, ValueError):
        return []
    return [root / name for name in names if not name.startswith(".") and os.path.isdir(root / name)]


def _weights_folder(folder: Path) -> Path | None:
    for candidate in (folder / WEIGHTS_FOLDER, folder):
        if any(os.path.isfile(candidate / f"unet{suffix}") for suffix in _SUFFIXES):
            return candidate
    return None


def _checkpoint(folder: Path, shared) -> Checkpoint | None:
    """The checkpoint at `folder`, if it is one; `shared`: folders that may hold what it lacks itself."""
    weights = _weights_folder(folder)
    if weights is None:
        return None
    if weights == folder and folder.name == WEIGHTS_FOLDER:
        folder = folder.parent
    files = {}
    for part in PARTS:
        paths = [
            place / f"{part}{suffix}" for place in (weights, folder / WEIGHTS_FOLDER, folder) for suffix in _SUFFIXES
        ]
        there = [path for path in paths if os.path.isfile(path)]
        files.update({part: there[0]} if there else {})
    folders = {}
    for kind, names in _FOLDERS.items():
        places = [place / name for place in dict.fromkeys((folder, *shared)) for name in names]
        folders[kind] = next((place for place in places if _holds(kind, place)), None)
    if folders["svd"] is None:
        folders["svd"] = find_svd_file(
            [folder, *shared, *(models / "checkpoints" for models in comfyui_models_folders())]
        )
    found = Checkpoint(folder.name, folder, files, **folders)
    if weights.name == WEIGHTS_FOLDER and folder in shared and not found.miniature:
        return replace(found, name=WEIGHTS_FOLDER)
    return found


def _holds(kind: str, folder: Path) -> bool:
    if kind == "whisper":
        return os.path.isfile(folder / "config.json")
    if kind == "svd":
        return os.path.isdir(folder / "vae")
    try:
        return any(name.endswith((".npy", ".safetensors")) for name in os.listdir(folder))
    except OSError:
        return False
