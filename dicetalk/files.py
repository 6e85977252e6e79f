"""Small things that everything does that writes large files."""

import errno
import hashlib
import os
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

STATE_SUFFIX = ".resume"  # of the file with the finished steps of a video, after the video's own name
_CHUNK = 2**20
_BEING_WRITTEN: set[str] = set()  # names of files, by this process


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
    """A path beside `path` to write to; it becomes `path` when the block ends well, and goes when it does not.

    What is written is on the disk before it takes its name, so that a power cut leaves no half file either.

    Raises:
        InputError: nothing can be written there, or not to the end. What the block itself raises is raised on.
    """
    path = Path(path)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")  # each of two that write at once
    _BEING_WRITTEN.add(part.name)
    try:
        yield part
        with write_errors(path):
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        with suppress(OSError):  # it would hide the error that matters
            part.unlink(missing_ok=True)
        _BEING_WRITTEN.discard(part.name)


@contextmanager
def write_errors(path):
    """Turns what the system says when `path` cannot be written into one InputError that names it."""
    try:
        yield
    except OSError as error:  # PyAV's errors are OSErrors too where they have an errno
        raise InputError(f"{path} cannot be written: {write_problem(error)}.") from error


def write_problem(error) -> str:
    """Why something could not be written, in a few words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission, or another program has it open"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "its folder is gone"
    return (error.strerror or str(error)).lower()


def remove_leftovers(path):
    """Remove what processes that were ended by force left beside a path."""
    name = re.compile(rf"\.{re.escape(path.name)}\.([1-9]\d*)-[0-9a-f]{{8}}\.part")
    for file in path.parent.iterdir():
        writer = name.fullmatch(file.name)
        if writer and file.name not in _BEING_WRITTEN and not _is_another(int(writer[1])):
            with suppress(PermissionError):  # what is being written to cannot be removed on Windows
                file.unlink(missing_ok=True)


def _is_another(process):
    """Whether another process of this number is running; always False on Windows, where to ask would end it."""
    if process == os.getpid() or os.name == "nt":
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # someone else's
        pass
    return True


def existing_folder(path) -> Path:
    """The nearest of a path and the folders around it that exists; InputError where not even its drive does."""
    path = Path(path).absolute()
    found = next((folder for folder in (path, *path.parents) if folder.exists()), None)
    if found is None:
        raise InputError(
            f"{path} cannot be written: there is no {path.anchor}; name a folder on a drive that is there."
        )
    return found


def require_space(folder, size) -> None:
    """InputError unless the disk of a folder (which need not exist yet) has room for `size` bytes."""
    free = shutil.disk_usage(existing_folder(folder)).free
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
