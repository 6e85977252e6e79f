"""Tensors from files of weights, safetensors or PyTorch's zip format. No file is unpickled freely."""

import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_MOST_TENSORS = 5_000  # the largest part, the UNet, has 1,556
_LARGEST_PICKLE = 16 * 2**20  # the UNet's is about 200 kB
_ASKED_FOR_TENSORS = {
    "collections OrderedDict",
    "torch.storage UntypedStorage",
    *(f"torch._utils _rebuild_{what}" for what in ("tensor_v2", "tensor_v3", "parameter")),
}


class Unreadable(Exception):
    """Why a file gives no tensors: what follows the file's name in a sentence."""


def read_tensors(path) -> dict[str, Tensor]:
    """Tensors of a file of weights, memory-mapped: safetensors or PyTorch's zip format, recognized by their content.

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
        raise Unreadable(f"is truncated or damaged ({_first_line(error)})") from None


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
        raise Unreadable(f"is truncated or damaged ({_first_line(error)})") from None
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
        raise Unreadable(f"is truncated or damaged ({_first_line(error)})") from None
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
        # PyTorch 2.14 takes a path that ends so for safetensors, whatever the file holds; only a path can be mapped.
        if path.suffix == ".safetensors":
            with open(path, "rb") as file:
                content = torch.load(file, map_location="cpu", weights_only=True)
        else:
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:  # whose text is long, and of something else
        raise Unreadable("is truncated or damaged") from None
    except Exception as error:  # whatever a damaged or hostile file makes the reader stumble over
        raise Unreadable(f"is truncated or damaged ({_first_line(error)})") from None
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


def _first_line(error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
