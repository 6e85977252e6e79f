"""Files of sound and video: opening them with FFmpeg through PyAV, their metadata, and checks of names."""

import contextlib
import errno
import os
import re
import tempfile
from pathlib import Path

import av

from ..errors import InputError, reason
from ..files import write_problem
from .wav import as_meant


def check_is_file(path, what):
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: name an {what} file.")
    if not os.path.exists(path):
        raise InputError(f"{path} does not exist: check the {what} file's name.")
    if os.path.getsize(path) == 0:
        raise InputError(f"{path} is empty: use another {what} file.")


AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_HEAD = 512  # bytes
_BINARY = re.compile(rb"[^\t\n\r\x20-\x7e]")
OTHER_RATE = 48000  # for what AAC does not have
# Tags need not be UTF-8. PyAV 19 keeps whatever they are, and no longer has the option.
_ANY_TAGS = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_media(source):
    """PyAV's container of a sound, picture or video file.

    Args:
        source: a path, or an object that reads bytes.

    Raises:
        av.error.FFmpegError, OSError, ValueError: it cannot be opened, or is of no format that FFmpeg knows.
    """
    if hasattr(source, "read"):
        return av.open(source, **_ANY_TAGS)
    return av.open(as_meant(os.path.abspath(source)), **_ANY_TAGS)


def unreadable(source, error):
    """What to say of a file that `open_media` cannot open: why, and the remedy.

    Args:
        source: as there.
        error: what it raised.
    """
    with contextlib.suppress(OSError, TypeError), open(source, "rb") as file:
        head = file.read(_HEAD)
        if head[4:8] == b"ftyp":
            return "its index is missing", "the recording or the copy was cut off; copy it again"
        if not _BINARY.search(head):
            return "it holds text", "it may be a web page, or a pointer to a file; download the file itself"
    return getattr(error, "strerror", None) or reason(error), "convert it, for instance to WAV or MP4"


def read_metadata(source):
    """The metadata of a video file, a path or an object that reads bytes, as a dict of text."""
    with av.open(source if hasattr(source, "read") else os.path.abspath(source)) as container:
        return dict(container.metadata)


def check_writable(path, suffix=""):
    """Raise InputError if a file at `path` could not be written.

    That is: missing folder, folder in its place, no permission, a name that is too long while it is being written.

    Args:
        path: the file.
        suffix: of the name of a file that is kept beside it.
    """
    path = Path(path)
    folder = path.parent
    if path.is_dir():
        raise InputError(f"The output {path} is a folder: name a file, for instance {path / 'talking.mp4'}.")
    if not folder.is_dir():
        raise InputError(f"The output folder {folder} does not exist: create it or write elsewhere.")
    try:
        # The longest name is that of what becomes it, see `written_beside`; 4194304 is Linux's longest process number,
        # so that a name that will do in one run will do in the next.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}{suffix}.4194304-", suffix=".part"):
            pass
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"The name of the output {path.name} is too long: choose a shorter one.") from error
        raise InputError(f"The output folder {folder} cannot be written to: {write_problem(error)}.") from error
