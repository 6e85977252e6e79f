"""Turn a published checkpoint into safetensors, a few tensors in memory at a time."""

import json
import os
import shutil
from pathlib import Path

import torch

from .. import __version__
from ..errors import InputError
from ..files import readable_size, require_space, sha256_of, written_beside
from .classes import order_file
from .finding import (
    EMOTIONS_FOLDER,
    MINIATURE_FILE,
    PARTS,
    SVD_FOLDER,
    UNTRAINED_FILE,
    WEIGHTS_FOLDER,
    WHISPER_FOLDER,
    Checkpoint,
)
from .loading import fitted_part, read_state_dict
from .priors import load_prior, prior_files
from .student import STUDENT_FILE
from .svd_xt import write_svd_parts

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_SAFETENSORS_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_SVD_SUBFOLDERS = ("vae", "image_encoder", "scheduler", "feature_extractor")


def convert_checkpoint(
    checkpoint: Checkpoint, output=None, dtype: str | None = None, on_bytes=None, on_file=None
) -> None:
    """Convert the four parts and the emotion priors of a checkpoint; what is converted already is left as it is.

    Args:
        checkpoint: its parts are .pth files (or safetensors, when `output` is another folder).
        output: folder of the new checkpoint, which also gets what needs no conversion. None: safetensors are written
            beside the files that they come from.
        dtype: "float16", "bfloat16" or "float32"; None keeps each tensor's own.
        on_bytes: called as ``on_bytes(count)`` for every piece of a part that was read or written, `total_bytes` in
            all.
        on_file: called as ``on_file(path, written)`` after each file; `written` is False for one that was up to date.

    Raises:
        InputError: a part is missing or wrong (as `read_state_dict` and `check_state_dict`), numbers do not fit the
            dtype, a file that this function did not write is in the way, or the disk is full.
    """
    output = None if output is None else Path(output).expanduser().absolute()
    report = on_file or (lambda path, written: None)
    try:
        parts = [(part, source, _target(source, output)) for part, source in _part_sources(checkpoint).items()]
        for part, source, target in parts:
            if target != source:
                _read_part(part, source, dtype)  # what is wrong with any of them is reported before one is written
        for part, source, target in parts:
            report(target, _convert_part(part, source, target, dtype, on_bytes or (lambda count: None)))
        for source in _prior_sources(checkpoint):
            target = (output / EMOTIONS_FOLDER if output else source.parent) / f"{source.stem}.safetensors"
            report(target, _convert_prior(source, target))
        for source, target in companions(checkpoint, output) if output else ():
            report(target, link_or_copy(source, target))
        if output and checkpoint.student:
            source, target = checkpoint.files["unet"].parent / STUDENT_FILE, output / WEIGHTS_FOLDER / STUDENT_FILE
            report(target, link_or_copy(source, target))
        if checkpoint.svd and checkpoint.svd.is_file():
            write_svd_parts(checkpoint.svd, (output or checkpoint.root) / SVD_FOLDER, on_file=report)
    except OSError as error:
        place = error.filename or output or checkpoint.root
        raise InputError(
            f"{place} cannot be read or written ({error.strerror or error}). Run the command again when that is fixed."
        ) from None


def total_bytes(checkpoint: Checkpoint) -> int:
    """How many bytes `convert_checkpoint` reports when nothing is converted yet: each part is read twice."""
    return sum(2 * source.stat().st_size for source in _part_sources(checkpoint).values())


def _part_sources(checkpoint):
    sources = {}
    for part in PARTS:
        file = checkpoint.file(part)
        original = file.with_suffix(".pth")
        sources[part] = original if original.is_file() else file
    return sources


def _target(source, output):
    target = source.with_suffix(".safetensors")
    return target if output is None else output / WEIGHTS_FOLDER / target.name


def _prior_sources(checkpoint):
    if checkpoint.emotions is None:
        return []
    files = prior_files(checkpoint.emotions).values()
    originals = [path.with_suffix(".npy") for path in files]
    return [original if original.is_file() else path for original, path in zip(originals, files)]


def companions(checkpoint, output):
    """(source, target) of the files that a checkpoint needs as they are."""
    if checkpoint.untrained:
        yield checkpoint.root / UNTRAINED_FILE, output / UNTRAINED_FILE
    if checkpoint.miniature:
        yield checkpoint.root / MINIATURE_FILE, output / MINIATURE_FILE
    if order_file(checkpoint).is_file():
        yield order_file(checkpoint), output / order_file(checkpoint).name
    folders = []
    if checkpoint.whisper:
        folders.append((checkpoint.whisper, output / WHISPER_FOLDER))
    if checkpoint.svd and checkpoint.svd.is_dir():
        folders += [(checkpoint.svd / name, output / SVD_FOLDER / name) for name in _SVD_SUBFOLDERS]
    for folder, target in folders:
        for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
            if (folder / name).is_file():
                yield folder / name, target / name


def _read_part(part, source, dtype):
    tensors = read_state_dict(source, part)
    fitted_part(part, tensors, source)
    kinds = {tensor.dtype for tensor in tensors.values()} - _SAFETENSORS_NAMES.keys()
    if dtype is None and kinds:
        raise InputError(
            f"{source} holds numbers of the type {', '.join(sorted(str(kind)[6:] for kind in kinds))}, which "
            "safetensors does not take here: give --dtype float16, bfloat16 or float32."
        )
    return tensors


def _convert_part(part, source, target, dtype, on_bytes):
    size = source.stat().st_size
    if target == source:
        on_bytes(2 * size)
        return False
    digest = sha256_of(source, on_bytes)
    metadata = {
        "format": "pt",
        "part": part,
        "source": source.name,
        "source_sha256": digest,
        "dtype": dtype or "as in source",
        "dicetalk_version": __version__,
    }
    if _is_up_to_date(target, metadata):
        on_bytes(size)
        return False
    tensors = _read_part(part, source, dtype)
    try:
        _write_safetensors(target, tensors, metadata, DTYPES.get(dtype), on_bytes)
    except _NotFinite as error:
        raise InputError(f"{source}: {error}") from None
    on_bytes(size - sum(tensor.nbytes for tensor in tensors.values()))
    return True


def _is_up_to_date(target, metadata):
    if not target.exists():
        return False
    found = _metadata(target)
    if "source_sha256" not in found:
        raise InputError(
            f"{target} exists and was not written by this command: move it away, or name another folder with --output."
        )
    return all(found.get(key) == value for key, value in metadata.items() if key != "dicetalk_version")


def _metadata(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError:
        return {}


class _NotFinite(Exception):
    """What is wrong with a tensor's numbers."""


def _write_safetensors(path, tensors, metadata, dtype, on_bytes):
    """Write a safetensors file one tensor at a time (the safetensors library wants all of them, cast, in memory)."""
    header, end = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        kind = dtype or tensor.dtype
        start, end = end, end + tensor.numel() * kind.itemsize
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[kind],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    require_space(path.parent, 8 + len(text) + end)
    with written_beside(path) as part, open(part, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            data = tensor.to(dtype or tensor.dtype).contiguous()
            _check_finite(name, tensor, data)
            file.write(data.reshape(-1).view(torch.uint8).numpy())
            on_bytes(tensor.nbytes)


def _check_finite(name, tensor, data):
    if data.element_size() == 1 or bool(data.isfinite().all()):
        return
    if bool(tensor.isfinite().all()):
        raise _NotFinite(f"{name} holds numbers too large for {str(data.dtype)[6:]}. Use --dtype bfloat16 or float32.")
    raise _NotFinite(
        f"{name} holds numbers that are not finite (NaN or infinity). "
        "Fetch the file again with `python -m dicetalk download`."
    )


def _convert_prior(source, target):
    from ..emotion.files import load_emotion, save_emotion
    from ..emotion.text import one_line

    if target == source:
        return False
    emotion = load_prior(source)
    if target.exists():
        try:
            found = load_emotion(target)
        except InputError:
            raise InputError(f"{target} exists and was not written by this command: move it away.") from None
        if (found, found.provenance) == (emotion, emotion.provenance):
            return False
        if not found.provenance.startswith(f"{one_line(source.name)} sha256:"):
            raise InputError(f"{target} exists and does not come from {source.name}: move it away.")
    target.parent.mkdir(parents=True, exist_ok=True)
    save_emotion(emotion, target)
    return True


def link_or_copy(source, target):
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        require_space(target.parent, source.stat().st_size)
        with written_beside(target) as part:
            shutil.copyfile(source, part)
    return True


def describe(path, written) -> str:
    """A line for people about a file that `convert_checkpoint` reported."""
    return f"{'wrote' if written else 'up to date:'} {path} ({readable_size(path.stat().st_size)})"
