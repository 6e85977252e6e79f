"""Checkpoints: where they lie, and how a file of weights becomes a module, or one clear error.

A checkpoint is a folder in the published layout. What it lacks of the folders below, it shares with others beside it.

    DICE-Talk/{unet,pose_guider,audio_linear,emo_model}.pth or .safetensors; they may also lie in the folder itself
    whisper-tiny/                        the Whisper encoder, as openai/whisper-tiny
    stable-video-diffusion-img2vid-xt/   VAE, CLIP vision tower and scheduler of SVD-XT, diffusers layout
    emotions/                            the emotion priors (also ``examples/emo/`` beside the folder)
    UNTRAINED                            present if the weights are random, see ``tiny.py``

No file is unpickled freely, and the configuration of every part is read off its tensors' shapes.
"""

import os
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import InputError
from .priors import load_priors, read_prior  # noqa: F401  (part of this module's interface)

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

_MOST_TENSORS = 5_000  # the largest part, the UNet, has 1,556
_LARGEST_PICKLE = 16 * 2**20  # the UNet's is some 200 kB
_ASKED_FOR_TENSORS = {
    "collections OrderedDict",
    "torch.storage UntypedStorage",
    *(f"torch._utils _rebuild_{what}" for what in ("tensor_v2", "tensor_v3", "parameter")),
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder as found; parts and folders that it lacks are absent or None.

    Attributes:
        name: unique among the checkpoints found together.
        root: the checkpoint folder.
        files: part → file, for the parts of `PARTS` that are there; safetensors before .pth.
        whisper, svd, emotions: folders, see the module's description.
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

    def file(self, part: str) -> Path:
        """The file of a part of `PARTS`; InputError if the checkpoint lacks it."""
        if part not in self.files:
            raise InputError(
                f"The checkpoint {self.root} lacks {part}.pth, {PART_TITLES[part]}. "
                f"Fetch it with `python -m dicetalk download --only dice-talk --output {self.root}`."
            )
        return self.files[part]

    def folder(self, kind: str) -> Path:
        """The folder "whisper", "svd" or "emotions"; InputError if the checkpoint lacks it."""
        folder = getattr(self, kind)
        if folder is None:
            raise InputError(
                f"The checkpoint {self.root} lacks {_FOLDER_TITLES[kind]}. "
                f"Fetch it with `python -m dicetalk download --only {kind} --output {self.root}`."
            )
        return folder


def default_roots() -> list[Path]:
    """The places where the command line looks for checkpoints, in this order; they need not exist.

    ComfyUI's models/dicetalk (of $COMFYUI_PATH, of the ComfyUI whose custom_nodes/ holds this package, of
    ~/comfy/ComfyUI), then ./checkpoints.
    """
    models = comfyui_models_folders()
    return list(dict.fromkeys([*(folder / "dicetalk" for folder in models), Path("checkpoints").absolute()]))


def comfyui_models_folders() -> list[Path]:
    """The models/ folders of the ComfyUI installations known without ComfyUI; they need not exist."""
    installations = []
    if os.environ.get("COMFYUI_PATH"):
        installations.append(Path(os.environ["COMFYUI_PATH"]).expanduser().absolute())
    pack = Path(__file__).absolute().parents[1]
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
            found[name] = Checkpoint(**{**vars(checkpoint), "name": name})
    return found


def resolve_checkpoint(path=None, roots=None) -> Checkpoint:
    """The checkpoint to use.

    Args:
        path: a checkpoint folder, a folder that holds one (as ``checkpoints/`` or as its only one), a file in one, or
            the name of one in `roots`. None: the first in `roots`, a trained one before an untrained one.
        roots: folders to look in; those of `default_roots` when None.

    Raises:
        InputError: there is none; says where it looked and how to get one.
    """
    roots = default_roots() if roots is None else [_absolute(root) for root in roots]
    found = find_checkpoints(roots)
    if path is None:
        if found:
            return min(found.values(), key=lambda checkpoint: checkpoint.untrained)
        raise InputError(
            f"No DICE-Talk checkpoint in {', '.join(map(str, roots))}. Fetch the published one with "
            "`python -m dicetalk download`, or write a tiny, untrained one with `python -m dicetalk tiny DIR`."
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
        f"{folder}`, or write a tiny, untrained one with `python -m dicetalk tiny {folder}`."
    )


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
    name = WEIGHTS_FOLDER if weights.name == WEIGHTS_FOLDER and folder in shared else folder.name
    return Checkpoint(name, folder, files, **folders)


def _holds(kind: str, folder: Path) -> bool:
    if kind == "whisper":
        return os.path.isfile(folder / "config.json")
    if kind == "svd":
        return os.path.isdir(folder / "vae")
    try:
        return any(name.endswith((".npy", ".safetensors")) for name in os.listdir(folder))
    except OSError:
        return False


def read_state_dict(path, part: str) -> dict[str, Tensor]:
    """Tensors of a part's file, as `read_tensors`; a prefix that all names share ("module.", "model.diffusion_model.",
    "diffusion_model.") is dropped.

    Args:
        path: the file.
        part: one of `PARTS`, for the error message.

    Raises:
        InputError: the file is none of weights, for one of the reasons of `Unreadable`.
    """
    try:
        return _without_prefix(read_tensors(path))
    except Unreadable as problem:
        raise _refused(path, part, problem) from None


class Unreadable(Exception):
    """Why a file gives no tensors: what follows the file's name in a sentence."""


def read_tensors(path) -> dict[str, Tensor]:
    """Tensors of a file of weights, memory-mapped: safetensors or PyTorch's zip format, told apart by their content.

    A dictionary wrapped as ``{"state_dict": …}`` is unwrapped.

    Raises:
        Unreadable: missing, empty, truncated, no weights at all, more than weights, or more than it could honestly
            hold. A pickle is read with ``weights_only``: nothing in it is run.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror or error})") from None
    if size == 0:
        raise Unreadable("is empty")
    if head.startswith(b"PK"):
        tensors = _read_pth(path, size)
    elif head[8:9] == b"{":
        tensors = _read_safetensors(path, size, int.from_bytes(head[:8], "little"))
    else:
        raise Unreadable(_text_kind(head) or "is neither safetensors nor a zip file of PyTorch's")
    if not tensors:
        raise Unreadable("holds no tensors")
    if len(tensors) > _MOST_TENSORS:
        raise Unreadable(f"holds {len(tensors)} tensors, far more than the part has")
    return tensors


def _refused(path, part, problem) -> InputError:
    return InputError(f"{path}, taken for {PART_TITLES[part]}, {problem}. {_remedy(part)}")


def _remedy(part) -> str:
    return (
        f"Put the published {part}.pth there: remove this file and run `python -m dicetalk download --only dice-talk`."
    )


def _text_kind(head: bytes) -> str | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page that was saved in place of the weights"
    if text.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer (a note of where the weights are), not the weights"
    if all(byte in b"\t\r\n" or 32 <= byte for byte in head) and head.isascii():
        return "is a text file, not weights"
    return None


def _read_safetensors(path, size, header_size):
    from safetensors import SafetensorError, safe_open

    if header_size > size - 8:
        raise Unreadable(f"is truncated or damaged: its header claims {header_size} bytes of {size}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise Unreadable(f"is truncated or damaged ({_one_line(error)})") from None


def _check_zip(path, size):
    """Unreadable unless a file of `size` bytes is a zip file as PyTorch writes them; nothing in it is unpacked.

    What does not begin as one, torch.load would read in one of its older formats, whatever follows.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise Unreadable("is not in PyTorch's zip format")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:
        raise Unreadable(f"is truncated or damaged ({_one_line(error)})") from None
    honest = all(
        entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size for entry in entries
    )
    pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
    if not honest or sum(entry.file_size for entry in entries) > size:
        raise Unreadable("is a packed zip file, as PyTorch never writes them, and is not opened")
    if len(pickles) != 1 or pickles[0].file_size > _LARGEST_PICKLE:
        raise Unreadable("is a zip file, but not one of PyTorch's")


def _check_pickle(path):
    """Unreadable if the pickle of a file that `_check_zip` passed asks for more than tensors need.

    PyTorch itself lets a pickle call more, such as bytearray, which takes any memory.
    """
    try:
        content = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")  # as torch.load finds it
        asked = {name for kind, name, _ in pickletools.genops(content) if "GLOBAL" in kind.name}
    except Exception as error:  # both readers raise many kinds for damaged files
        raise Unreadable(f"is truncated or damaged ({_one_line(error)})") from None
    if not all(map(_is_of_tensors, asked)):
        raise Unreadable("holds more than weights: it asks for code to be run, which was refused")


def _is_of_tensors(asked) -> bool:
    """Whether what a pickle asks for, "module name", is what torch.save needs for a dictionary of tensors."""
    module, _, name = (asked or "").partition(" ")  # None: a form that torch.save does not write
    kind = module == "torch" and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype))
    return kind or asked in _ASKED_FOR_TENSORS


def _read_pth(path, size):
    _check_zip(path, size)
    _check_pickle(path)
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:  # whose text is long, and of something else
        raise Unreadable("is truncated or damaged") from None
    except Exception as error:  # whatever a damaged or hostile file makes the reader stumble over
        raise Unreadable(f"is truncated or damaged ({_one_line(error)})") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise Unreadable("holds something other than a dictionary of names and tensors")
    data = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in content.values()}
    spread = any(value.numel() * value.element_size() > value.untyped_storage().nbytes() for value in content.values())
    if spread or sum(data.values()) > size:  # names may share their data, as tied weights do
        raise Unreadable("is damaged: its tensors claim more data than the file holds")
    return {name: value.detach() for name, value in content.items()}


def _one_line(error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _without_prefix(tensors):
    for prefix in ("module.", "model.diffusion_model.", "diffusion_model."):
        if all(name.startswith(prefix) for name in tensors):
            return {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
    return tensors


def check_state_dict(state_dict: Mapping[str, Tensor], expected: Mapping[str, tuple], path, part: str) -> None:
    """Refuse tensors that are not exactly those of a part.

    Args:
        state_dict: what `read_state_dict` gave.
        expected: name → shape of every tensor of the part.
        path: the file, for the error message.
        part: what it was taken for, one of `PARTS`.

    Raises:
        InputError: names the file, the part, the first few missing, unexpected and misshapen tensors, what the file
            seems to be instead, and what to do.
    """
    missing = [name for name in expected if name not in state_dict]
    unexpected = [name for name in state_dict if name not in expected]
    misshapen = [
        f"{name} ({_shape(state_dict[name].shape)} instead of {_shape(shape)})"
        for name, shape in expected.items()
        if name in state_dict and tuple(state_dict[name].shape) != tuple(shape)
    ]
    whole = [name for name, tensor in state_dict.items() if not tensor.is_floating_point()]
    faults = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen, "not of floating point": whole}
    if not any(faults.values()):
        return
    listed = "; ".join(f"{_first_few(names)} {kind}" for kind, names in faults.items() if names)
    kind = _kind(state_dict, part)
    problem = f"is {kind}: {listed}" if kind else f"does not fit: {listed}"
    raise _refused(path, part, problem)


def _shape(shape) -> str:
    return "×".join(map(str, shape)) or "a single number"


def _first_few(names, count=3) -> str:
    rest = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(name[:120] for name in names[:count]) + rest


def _kind(names, part) -> str | None:
    """What else a file with these tensor names is, if that can be told."""

    def any_has(*fragments):
        return any(fragment in name.lower() for name in names for fragment in fragments)

    def any_starts(*prefixes):
        return any(name.startswith(prefixes) for name in names)

    if any_has("lora_", ".lora", "lokr_", "hada_"):
        return "a LoRA, which a LoRA loader adds to the model" if part == "unet" else "a LoRA"
    if any_starts("first_stage_model.", "conditioner.", "cond_stage_model."):
        return "a whole Stable (Video) Diffusion checkpoint, which belongs into models/checkpoints"
    if any_starts("input_blocks.", "output_blocks."):
        return "a UNet under Stability AI's names, not DICE-Talk's"
    if any_starts("down_blocks."):
        if not any_has("temporal"):
            return "the UNet or ControlNet of another model"
        if not any_has("attn2.processor."):
            return "a plain Stable Video Diffusion UNet, without DICE-Talk's audio and emotion adapters"
        own = "unet"
    elif any_starts("emo_linear.", "kv_tokens_linear.", "codebook."):
        own = "emo_model"
    elif any_starts("proj1.", "proj3."):
        own = "audio_linear"
    elif any_starts("blocks.") and any_starts("conv_out."):
        own = "pose_guider"
    elif any_starts("encoder.down_blocks.", "decoder.up_blocks.", "decoder.up."):
        return "a VAE"
    elif any_starts("vision_model.", "visual."):
        return "a CLIP vision model"
    elif any_starts("model.encoder.layers.", "encoder.layers."):
        return "a Whisper or other speech model"
    else:
        return None
    return None if own == part else f"{PART_TITLES[own]} ({own}.pth)"


def build_part(part: str, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """The module of a part, on the meta device, its configuration read off the tensors' shapes.

    Args:
        part: one of `PARTS`.
        state_dict: its tensors (on any device; only names and shapes are used).

    Raises:
        KeyError: a tensor that tells a size is missing. (`fitted_part` turns this into an InputError.)
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    with torch.device("meta"):
        if part == "unet":
            from .unet import DiceTalkUNet, unet_config_from_state_dict

            return DiceTalkUNet(**unet_config_from_state_dict(state_dict))
        if part == "pose_guider":
            from .pose_guider import PoseGuider

            stages = [name for name in ("conv_in", *(f"blocks.{i}" for i in range(1, len(shapes), 2)))]
            channels = [shapes[f"{name}.weight"][0] for name in stages if f"{name}.weight" in shapes]
            return PoseGuider(shapes["conv_out.weight"][0], tuple(channels))
        if part == "audio_linear":
            from .audio import STATES, WINDOW, AudioProjection

            hidden, inputs = shapes["proj1.weight"]
            dim = shapes["norm.weight"][0]
            return AudioProjection(
                width=inputs // (WINDOW * STATES), hidden=hidden, tokens=shapes["proj3.weight"][0] // dim, dim=dim
            )
        if part == "emo_model":
            from .emotion import EmotionModel

            return EmotionModel(**EmotionModel.config_from_state_dict(state_dict))
    raise ValueError(f"unknown part {part!r}; one of {', '.join(PARTS)}")


def _released_part(part: str) -> nn.Module:
    """The module of a part as released, on the meta device."""
    with torch.device("meta"):
        if part == "unet":
            from .unet import DiceTalkUNet as module
        elif part == "pose_guider":
            from .pose_guider import PoseGuider as module
        elif part == "audio_linear":
            from .audio import AudioProjection as module
        else:
            from .emotion import EmotionModel as module
        return module()


def fitted_part(part: str, state_dict: Mapping[str, Tensor], path) -> nn.Module:
    """The module (on the meta device) that these tensors fit exactly; InputError as `check_state_dict` if none is."""
    try:
        module = build_part(part, state_dict)
    except Exception:  # names or shapes that no such part can have: compare with the released part to say which
        module = _released_part(part)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    check_state_dict(state_dict, expected, path, part)
    return module


def load_part(part: str, path, dtype: torch.dtype | None = None) -> nn.Module:
    """A part with the weights of a file, on the CPU, memory-mapped until it is moved or cast.

    Args:
        part: one of `PARTS`.
        path: its file, .pth or .safetensors.
        dtype: cast to this; None keeps what the file has.

    Returns:
        The module in evaluation mode, its parameters without gradients.

    Raises:
        InputError: as `read_state_dict` and `check_state_dict`.
    """
    state_dict = read_state_dict(path, part)
    module = fitted_part(part, state_dict, path)
    if dtype is not None:
        state_dict = {name: tensor.to(dtype) for name, tensor in state_dict.items()}
    module.load_state_dict(state_dict, assign=True)
    return module.eval().requires_grad_(False)
