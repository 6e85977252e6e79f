"""Small things that everything does that writes large files."""

import hashlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

_CHUNK = 2**20


def sha256_of(path, on_bytes=None) -> str:
    """The SHA-256 of a file as hexadecimal digits; `on_bytes(count)` is called for every piece that was read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return digest.hexdigest()


@contextmanager
def written_beside(path):
    """A path beside `path` to write to; it becomes `path` when the block ends well, and goes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        try:
            os.replace(part, path)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}): close what has it open.") from error
    finally:
        part.unlink(missing_ok=True)


def require_space(folder, size) -> None:
    """InputError unless the disk of a folder (which need not exist yet) has room for `size` bytes."""
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < size:
        raise InputError(
            f"{folder} needs {readable_size(size)} of free disk space, and there are {readable_size(free)}: "
            "make room, or name another folder with --output."
        )


def readable_size(size) -> str:
    """A number of bytes in decimal units: 1403 → "1.4 kB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
