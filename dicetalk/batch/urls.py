"""Files behind URLs (s3://, gs://, sftp:// …), through fsspec: inputs are copied to this machine, and outputs are put
where they belong when they are whole."""

import dataclasses
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import threading
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from ..errors import InputError, reason
from ..job import CLIP, Job
from ..script.text import is_file

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")  # a drive of Windows has one letter
_INPUTS = ("portrait", "video", "audio", "landmarks", "script", "emotion")


def is_url(text) -> bool:
    """Whether a text is a URL, and no path."""
    return isinstance(text, str) and _URL.match(text) is not None


def staging_folder(url: str) -> Path:
    """Where the output of a URL is made, and its steps are kept until it is there: the same at the next run."""
    return Path.home() / ".cache" / "dicetalk" / "batch" / hashlib.sha256(url.encode()).hexdigest()[:32]


class Copies:
    """Local copies of input files. The newest ones are kept for the next rows; fsspec's own caches keep all of them.

    Args:
        most: how many are kept besides those in use.
    """

    def __init__(self, most: int = 8):
        self._most = most
        self._kept: dict[str, _Copy] = {}
        self._lock = threading.Lock()

    def of(self, url: str, what: str) -> "_Copy":
        """The copy of a file; it is removed when nobody refers to it any more.

        Raises:
            InputError: it cannot be read; `what` is how the message calls it.
        """
        with self._lock:
            copy = self._kept.pop(url, None) or _Copy(url, what)
            self._kept[url] = copy
            while len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
            return copy


class _Copy:
    def __init__(self, url, what):
        folder = tempfile.mkdtemp(prefix="dicetalk-")
        weakref.finalize(self, shutil.rmtree, folder, True)
        self.path = os.path.join(folder, os.path.basename(url.rstrip("/")) or "file")
        with _errors(f"{what} is {url}, which cannot be read"):
            system, path = _opened(url)
            system.get_file(path, self.path)


@contextmanager
def at_hand(job: Job, copies: Copies) -> Iterator[Job]:
    """The job with files of this machine in the place of URLs; one without URLs is given as it is.

    Its output is made in `staging_folder`, and stays there with the steps that are done when the block ends by an
    error: `put` takes it away.

    Raises:
        InputError: a file cannot be read.
    """
    held, changes = [], {}
    for name in _INPUTS:
        value = getattr(job, name)
        if name == "script" and not is_file(value):
            continue  # it is the text itself
        before = CLIP if name == "emotion" and job.clip is not None else ""
        url = (value or "").removeprefix(before)
        if is_url(url):
            held.append(copies.of(url, name))
            changes[name] = before + held[-1].path
    if is_url(job.output):
        folder = staging_folder(job.output)
        folder.mkdir(parents=True, exist_ok=True)
        changes["output"] = str(folder / os.path.basename(job.output))
    try:
        yield dataclasses.replace(job, **changes) if changes else job
    finally:
        del held
        if "output" in changes:
            with suppress(OSError):  # there is something in it
                folder.rmdir()


def open_output(url: str):
    """The file behind a URL, to read from, or None if it is not there; InputError if its storage cannot be asked."""
    with _errors(f"output is {url}, which cannot be looked for"):
        system, path = _opened(url)
        return system.open(path, "rb") if system.isfile(path) else None


def is_there(url: str) -> bool:
    """Whether there is a file behind a URL; InputError if its storage cannot be asked."""
    with _errors(f"{url} cannot be looked for"):
        system, path = _opened(url)
        return system.isfile(path)


def list_folder(url: str, what: str) -> list[str]:
    """The URLs of the files in a folder.

    Raises:
        InputError: it cannot be read; `what` is how the message calls it.
    """
    with _errors(f"{what} is {url}, which cannot be read"):
        system, path = _opened(url)
        entries = system.ls(path, detail=True)
        return [system.unstrip_protocol(entry["name"]) for entry in entries if entry["type"] == "file"]


def put(job: Job, url: str) -> None:
    """Put the video of a job, and before it what is written beside it, where a URL says, and remove them here.

    Raises:
        InputError: one of them cannot be written. The files stay, and nothing half written is left there.
    """
    for file in job.beside:
        _put_file(str(file), next_to(url, file))
    _put_file(job.output, url)
    shutil.rmtree(os.path.dirname(job.output), ignore_errors=True)


def next_to(url: str, file: Path) -> str:
    """Where a file that is written beside an output belongs."""
    return f"{url.rpartition('/')[0]}/{file.name}"


def _put_file(file, url):
    """Put a file there under another name first. Parts of earlier tries go."""
    with _errors(f"output is {url}, which cannot be written"):
        system, path = _opened(url)
        folder, _, name = path.rpartition("/")
        part = f"{folder}/.{name}.{secrets.token_hex(4)}.part"
        try:
            system.put_file(file, part)
            system.mv(part, path)
        except BaseException:
            with suppress(Exception):
                system.rm_file(part)
            raise
        left = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.part")
        with suppress(Exception):  # the output is there
            system.invalidate_cache()
            for other in system.ls(folder, detail=False):
                if left.fullmatch(other.rstrip("/").rpartition("/")[2]):
                    system.rm_file(other)


def require_writable(url: str) -> None:
    """InputError unless something can be written beside the output: a try with an empty file, before any work."""
    with _errors(f"output is {url}, which cannot be written"):
        system, path = _opened(url)
        folder, _, name = path.rpartition("/")
        if system.isdir(path):
            raise IsADirectoryError("it is a folder")
        part = f"{folder}/.{name}.{secrets.token_hex(4)}.part"
        system.pipe_file(part, b"")
        system.rm_file(part)


def _opened(url):
    try:
        import fsspec
    except ImportError:
        raise InputError("fsspec is not installed, and reads and writes URLs: pip install fsspec.") from None
    return fsspec.core.url_to_fs(url)


@contextmanager
def _errors(what):
    """Turns whatever the library of a storage raises into one InputError."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{what}: there is no such file or folder; check the URL.") from error
    except ImportError as error:  # fsspec says which package a protocol needs
        raise InputError(f"{what}: {reason(error)}.") from error
    except Exception as error:
        raise InputError(f"{what}: {reason(error)}; check the URL and your rights.") from error
